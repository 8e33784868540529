"""Secrets of connections: kept as references everywhere, real only at the call.

Decides: that a path rooted at `connections` is never resolved with the rest (it becomes a slot and shows `MASK`), and
how the slots are filled at the call.
Leaves: which expressions are such paths to expressions.py.
Invariant: filling goes by the place of a slot, never by looking for text, so data that looks like
`{{connections.…}}` is never filled.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from flowlang.model import Json
from flowlang.paths import read_path
from flowlang.values import as_text

MASK = "•••"
"""What stands in journals, logs and on screen in place of a secret."""


class SecretRef(msgspec.Struct, frozen=True, array_like=True):
    """A connection by name and the path below its value."""

    connection: str
    path: tuple[str | int, ...] = ()


class SecretSlot(msgspec.Struct, frozen=True, array_like=True):
    """A place in a value (`path`) and what belongs there: one reference alone, or text around references."""

    path: tuple[str | int, ...]
    parts: tuple[str | SecretRef, ...]


class Resolved(msgspec.Struct, frozen=True, array_like=True):
    """A value without its secrets, and the slots that say where they belong. Fit for the journal."""

    value: Json
    secrets: tuple[SecretSlot, ...] = ()


def fill_secrets(resolved: Resolved, connections: Mapping[str, Json]) -> Json:
    """The value with its secrets, for the call alone.

    Changes nothing in `resolved`; a missing secret is null (in text: empty).
    """
    value = resolved.value
    for slot in resolved.secrets:
        value = _with_value_at(value, slot.path, _slot_value(slot, connections))
    return value


def _slot_value(slot: SecretSlot, connections: Mapping[str, Json]) -> Json:
    values = [part if isinstance(part, str) else _secret(part, connections) for part in slot.parts]
    if len(values) == 1:
        return values[0]
    return "".join(map(as_text, values))


def _secret(ref: SecretRef, connections: Mapping[str, Json]) -> Json:
    return read_path(connections.get(ref.connection), ref.path)


def _with_value_at(value: Json, path: tuple[str | int, ...], new: Json) -> Json:
    if not path:
        return new
    key, rest = path[0], path[1:]
    if isinstance(value, dict) and isinstance(key, str):
        return {**value, key: _with_value_at(value.get(key), rest, new)}
    if isinstance(value, list) and isinstance(key, int):
        return [*value[:key], _with_value_at(value[key], rest, new), *value[key + 1 :]]
    raise ValueError(f"The slot {path!r} does not fit its value.")
