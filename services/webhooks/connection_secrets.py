"""The texts behind secret references: `{{connections.<name>.secret}}`, or the text itself.

Decides: which references are understood here, and what a missing connection means for its endpoint.
Leaves: decryption to auth; when to read anew to endpoints.py.
Holds: secrets live in memory only and never enter an error, a log line or a stored delivery.
"""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, cast

import msgspec
from millrace.auth.v1.connection_pb2 import ResolveConnectionsRequest

from chassis.errors import Invalid

if TYPE_CHECKING:
    from millrace.auth.v1.connection_pb2_grpc import ConnectionServiceAsyncStub

_NAMES_AT_ONCE = 100
_REFERENCE = re.compile(r"\s*\{\{\s*connections\.([A-Za-z][A-Za-z0-9_]{0,63})((?:\.[A-Za-z_][A-Za-z0-9_]*)*)\s*\}\}\s*")


class ConnectionSecrets:
    """Reads secrets from auth."""

    def __init__(self, connections: "ConnectionServiceAsyncStub") -> None:
        self._connections = connections

    async def resolve(self, project_id: str, references: Iterable[str]) -> dict[str, bytes]:
        """The secret behind each reference that has one. Raises: Unavailable when auth is away."""
        found: dict[str, bytes] = {}
        named: dict[str, tuple[str, list[str]]] = {}
        for reference in references:
            if (match := _REFERENCE.fullmatch(reference)) is not None:
                named[reference] = (match[1], match[2].split(".")[1:] or ["secret"])
            elif "{{" not in reference:
                found[reference] = reference.encode()
        values = await self._values(project_id, sorted({name for name, _ in named.values()}))
        for reference, (name, path) in named.items():
            text = _at(values.get(name), path)
            if isinstance(text, str):
                found[reference] = text.encode()
        return found

    async def _values(self, project_id: str, names: list[str]) -> dict[str, object]:
        values: dict[str, object] = {}
        for start in range(0, len(names), _NAMES_AT_ONCE):
            request = ResolveConnectionsRequest(project_id=project_id, names=names[start : start + _NAMES_AT_ONCE])
            answer = await self._connections.ResolveConnections(request)
            values.update((one.name, msgspec.json.decode(one.value)) for one in answer.connections)
        return values


def secret_text(trigger_id: str, reference: str, texts: Mapping[str, bytes]) -> bytes:
    """The secret behind one reference. Raises: Invalid TRIGGER_INVALID (names no secret)."""
    text = texts.get(reference)
    if text is not None:
        return text
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        message = f"Trigger {trigger_id}: a secret must be a text or {{{{connections.<name>.secret}}}}."
    else:
        message = f"Trigger {trigger_id}: the connection {match[1]!r} does not exist or holds no such text. Create it."
    raise Invalid("TRIGGER_INVALID", message)


def _at(value: object, path: list[str]) -> object:
    for key in path:
        if not isinstance(value, dict):
            return None
        value = cast(dict[str, object], value).get(key)
    return value
