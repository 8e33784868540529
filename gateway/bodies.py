"""JSON bodies: read once, checked as strictly as documented, parts passed on as they came.

Decides: a body is decoded straight into its struct (the struct also documents it, openapi.py); documents and operations
inside stay bytes, so nothing is decoded twice and no number above 2^53 is rounded. What is not JSON is refused with its
position; a body of another shape with all its faults, but never more than a few: a body of 100,000 wrong names costs no
more than a short one.
Leaves: the size and time of a body to shell.py.
"""

import re
from typing import TypeVar

import msgspec
from fastapi import Request

from chassis.errors import Fault
from gateway.problems import Malformed, broken_json, is_json, request_invalid, unsupported

T = TypeVar("T", bound=msgspec.Struct)

_MAX_FAULTS = 20
_POSITION = re.compile(r" \(byte (\d+)\)")
_PLACE = re.compile(r" - at `\$\.?(.*)`$")


async def read_json(request: Request, body_type: type[T], *, optional: bool = False) -> T:
    """The body as a struct; with `optional` an empty one is the struct's defaults.

    Raises: UnsupportedMediaType, Malformed, Invalid REQUEST_INVALID.
    """
    body = await request.body()
    if optional and not body:
        return body_type()
    if not is_json(request.headers.get("content-type", "")):
        raise unsupported("application/json")
    try:
        return msgspec.json.decode(body, type=body_type)
    except msgspec.ValidationError as error:
        raise request_invalid(_all_faults(body, body_type) or [fault("", str(error))]) from None
    except msgspec.DecodeError as error:
        position = _POSITION.search(str(error))
        raise broken_json(_POSITION.sub("", str(error)), int(position[1]) if position else len(body)) from None
    except UnicodeDecodeError:
        raise Malformed("BODY_UNREADABLE", "The body is not UTF-8. Send JSON (RFC 8259) in UTF-8.") from None
    except RecursionError:
        raise Malformed("JSON_TOO_DEEP", "The body is nested too deeply to be read. Flatten it.") from None


def _all_faults(body: bytes, body_type: type[msgspec.Struct]) -> list[Fault]:
    """What is wrong with each field: decoding as a whole stops at the first."""
    try:
        given = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []
    faults = []
    for field in msgspec.structs.fields(body_type):
        value = given.pop(field.encode_name, None)
        if value is None:
            if field.required:
                faults.append(Fault(field=field.name, message="is required", reason="MISSING"))
            continue
        try:
            msgspec.json.decode(value, type=field.type)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            faults.append(fault(field.name, str(error)))
    unknown = [name for name, _ in zip(given, range(_MAX_FAULTS), strict=False)]
    faults += [Fault(field=name[:100], message="is no field of this request", reason="UNKNOWN") for name in unknown]
    return faults[:_MAX_FAULTS]


def fault(field: str, said: str) -> Fault:
    """A fault out of msgspec's words, which end with the place inside the field."""
    place = _PLACE.search(said)
    inside = place[1] if place else ""
    joined = f"{field}{'' if inside.startswith('[') or not field or not inside else '.'}{inside}"
    return Fault(field=joined or "body", message=_PLACE.sub("", said), reason="MALFORMED")
