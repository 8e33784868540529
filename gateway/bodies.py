"""Bodies that pass through: JSON whose parts go on as they came, and whole documents.

Decides: the outer object is checked here, its documents and operations stay bytes (nothing is decoded twice, no number
above 2^53 is rounded); what is not JSON is refused with its position.
"""

import re
from typing import TypeVar

import msgspec
from fastapi import Request

from chassis.errors import Fault
from gateway.problems import Malformed, broken_json, is_json, request_invalid, unsupported

T = TypeVar("T")
_POSITION = re.compile(r"\(byte (\d+)\)")
_FIELD = re.compile(r" - at `\$\.?(.*)`$")


async def read_json(request: Request, decoder: "msgspec.json.Decoder[T]") -> T:
    """The body, as the decoder's type says. Raises: UnsupportedMediaType, Malformed, Invalid."""
    if not is_json(request.headers.get("content-type", "")):
        raise unsupported("application/json")
    body = await request.body()
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        place = _FIELD.search(str(error))
        message = _FIELD.sub("", str(error))
        raise request_invalid(
            [Fault(field=place[1] if place else "body", message=message, reason="MALFORMED")]
        ) from None
    except msgspec.DecodeError as error:
        position = _POSITION.search(str(error))
        raise broken_json(
            _POSITION.sub("", str(error)).strip(" :"), int(position[1]) if position else len(body)
        ) from None
    except RecursionError:
        raise Malformed("JSON_TOO_DEEP", "The body is nested too deeply to be read. Flatten it.") from None
    except UnicodeDecodeError:
        raise Malformed("BODY_UNREADABLE", "The body is not UTF-8. Send JSON (RFC 8259) in UTF-8.") from None
