"""What a body becomes in a trigger's output, as JSON bytes.

| content type                                      | `trigger.body`                                       |
|---------------------------------------------------|------------------------------------------------------|
| JSON (`application/json`, `…+json`)               | the value, byte for byte as it came                  |
| `application/x-www-form-urlencoded`               | an object; a field that comes twice is a list        |
| `multipart/form-data`                             | likewise, with files; `trigger.files` lists them     |
| text and XML (`text/*`, `application/xml`, `+xml`)| a text                                               |
| anything else, or none                            | null, and `trigger.raw_body_base64`                  |
| no body                                           | null                                                 |

Decides: that table, what broken input is told, and the limits before anything is built (depth, fields, encodings).
Leaves: multipart to multipart.py; numbers beyond a double (1e999) to whoever reads them: bytes are kept as they came.
Measured: checking 8 KB of JSON takes 14 µs, decoding it would take 15 and the allocation of every value.
"""

import re
from base64 import b64encode
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import parse_qsl

import msgspec

from chassis.documents import deeper_than
from chassis.errors import Invalid
from services.webhooks.refusals import UnsupportedBody
from services.webhooks.triggers import BodyKind

_check_syntax = msgspec.json.Decoder(msgspec.Raw).decode
_BYTE = re.compile(r"\(byte (\d+)\)")
_BOM = b"\xef\xbb\xbf"


def media_type(content_type: str) -> str:
    """The media type of a `content-type` header, lower case, without parameters."""
    return content_type.partition(";")[0].strip().lower()


@lru_cache(maxsize=256)  # senders use few content types; evil ones push out only each other
def kind_of(content_type: str, declared: BodyKind) -> str:
    """How to read a body: as the endpoint declares, else by its type: json, form, multipart, text or raw."""
    media = media_type(content_type)
    if media == "multipart/form-data" and declared in ("auto", "form"):
        return "multipart"
    if declared != "auto":
        return declared
    if media == "application/json" or media.endswith("+json"):
        return "json"
    if media == "application/x-www-form-urlencoded":
        return "form"
    if media.startswith("text/") or media == "application/xml" or media.endswith("+xml"):
        return "text"
    return "raw"


def body_json(body: bytes, kind: str, content_type: str, max_depth: int, max_fields: int) -> bytes:
    """What follows `"body":` in the trigger's output, for a body that is no multipart.

    Raises: Invalid JSON_INVALID, FORM_INVALID, TEXT_INVALID; UnsupportedBody CHARSET_UNKNOWN.
    """
    if not body:
        return b"null"
    if kind == "json":
        return check_json(body, max_depth)
    if kind == "form":
        return msgspec.json.encode(read_form(body, max_fields))
    if kind == "text":
        return msgspec.json.encode(read_text(body, content_type))
    return b'null,"raw_body_base64":"%s"' % b64encode(body)


def check_json(body: bytes, max_depth: int) -> bytes:
    """The body when it is one JSON value in UTF-8, without its byte order mark. Raises: Invalid JSON_INVALID."""
    if body.startswith(_BOM):
        body = body[len(_BOM) :]
    try:
        body.decode()
        _check_syntax(body)
    except UnicodeDecodeError as error:
        raise _json_error(body, error.start, "the text is not UTF-8") from error
    except msgspec.DecodeError as error:
        found = _BYTE.search(str(error))
        what = _BYTE.sub("", str(error)).removeprefix("JSON is malformed:").strip()
        raise _json_error(body, int(found[1]) if found else len(body), what) from error
    except RecursionError as error:
        raise _too_deep(max_depth) from error
    if deeper_than(body, max_depth):
        raise _too_deep(max_depth)
    return body


def read_form(body: bytes, max_fields: int) -> dict[str, str | list[str]]:
    """The fields of a URL-encoded form. Raises: Invalid FORM_INVALID."""
    try:
        return grouped(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=max_fields))
    except UnicodeDecodeError as error:
        raise Invalid("FORM_INVALID", f"The form is not UTF-8 at byte {error.start}.") from error
    except ValueError as error:
        raise Invalid("FORM_INVALID", f"The form has more than {max_fields} fields.") from error


def grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, str | list[str]]:
    """Name → value, or the list of values when a name comes more than once."""
    fields: dict[str, str | list[str]] = {}
    for name, value in pairs:
        present = fields.get(name)
        if present is None:
            fields[name] = value
        elif isinstance(present, list):
            present.append(value)
        else:
            fields[name] = [present, value]
    return fields


def read_text(body: bytes, content_type: str) -> str:
    """A text in the charset that its content type names, else UTF-8. Raises: UnsupportedBody; Invalid TEXT_INVALID."""
    charset = "utf-8"
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip(' "').lower()
    if charset not in _CHARSETS:
        raise UnsupportedBody("CHARSET_UNKNOWN", f"The charset {charset[:40]!r} is not read here. Send UTF-8.")
    try:
        return body.decode(charset)
    except UnicodeDecodeError as error:
        raise Invalid("TEXT_INVALID", f"The text is not {charset} at byte {error.start}.") from error


_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1", "windows-1252", "utf-16"})


def _json_error(body: bytes, at: int, what: str) -> Invalid:
    line = body.count(b"\n", 0, at) + 1
    column = at - body.rfind(b"\n", 0, at)
    return Invalid(
        "JSON_INVALID",
        f"The body is not valid JSON at line {line}, column {column} (byte {at}): {what}.",
        line=line,
        column=column,
        position=at,
    )


def _too_deep(max_depth: int) -> Invalid:
    return Invalid("JSON_INVALID", f"The JSON body nests deeper than {max_depth} levels.", max_depth=max_depth)
