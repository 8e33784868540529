"""The output of a webhook trigger, put together as bytes: `{"method":…,"headers":…,"query":…,"files":…,"body":…}`.

Decides: the form of that document, and what is masked in it before it is stored anywhere.
Leaves: the body to bodies.py and multipart.py; packing to chassis.documents.
Holds: credentials never enter a payload; the body's JSON is copied, never parsed and written anew.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import cast
from urllib.parse import parse_qsl

import msgspec
from millrace.webhooks.v1 import ingest_pb2 as pb

from chassis.errors import Invalid
from services.webhooks.bodies import grouped

MASK = "[masked]"
_encode = msgspec.json.Encoder().encode


def headers_of(received: Sequence[pb.Header]) -> dict[str, str]:
    """Headers by lower-case name; what comes more than once is joined with a comma (RFC 9110, 5.3)."""
    headers = {header.name: header.value for header in received}
    if len(headers) == len(received):
        return headers
    headers.clear()
    for header in received:
        known = headers.get(header.name)
        headers[header.name] = header.value if known is None else f"{known}, {header.value}"
    return headers


def assemble(
    method: str,
    headers: Mapping[str, str],
    masked: Collection[str],
    query: str,
    body: bytes,
    max_fields: int,
    files: bytes = b"[]",
) -> bytes:
    """The trigger's output around a body that is JSON already. Raises: Invalid QUERY_INVALID."""
    shown = {name: MASK if name in masked else value for name, value in headers.items()}
    return b'{"method":"%s","headers":%s,"query":%s,"files":%s,"body":%s}' % (
        method.encode(),
        _encode(shown),
        query_json(query, max_fields),
        files,
        body,
    )


def query_json(query: str, max_fields: int) -> bytes:
    """A query string as a JSON object; a name that comes twice is a list. Raises: Invalid QUERY_INVALID."""
    if not query:
        return b"{}"
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=max_fields)
    except ValueError as error:
        raise Invalid("QUERY_INVALID", f"The query has more than {max_fields} fields.") from error
    return _encode(grouped(pairs))


def text_at(output: bytes, path: Iterable[str | int]) -> str:
    """The text or number at a place in a trigger's output; empty when there is none. Parses the output."""
    try:
        value: object = msgspec.json.decode(output)
    except msgspec.MsgspecError:  # a number beyond a double: valid JSON that this parser refuses
        return ""
    for step in path:
        if isinstance(value, dict) and isinstance(step, str):
            value = cast(dict[str, object], value).get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = cast(list[object], value)[step]
        else:
            return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return str(value)
