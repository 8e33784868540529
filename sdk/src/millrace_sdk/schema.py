"""From an input struct to its JSON Schema.

Decides: that the schema stands alone (every reference written out), so that a form can be drawn from any part of it.
Leaves: which Python type gives which schema to msgspec.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from .fields import Input
from .values import Json

_REFERENCE = "#/$defs/"


def input_schema(input_type: type[Input]) -> dict[str, Json]:
    """The JSON Schema (2020-12) of an input, without references. Raises TypeError for a struct that contains itself."""
    document = msgspec.json.schema(input_type)
    schema = _written_out(document, document.get("$defs", {}), ())
    if not isinstance(schema, dict):
        raise TypeError(f"{input_type.__name__} has no schema of an object")
    schema.pop("$defs", None)
    schema.pop("title", None)
    return schema


def _written_out(node: Json, definitions: Mapping[str, Json], inside: tuple[str, ...]) -> Json:
    if isinstance(node, list):
        return [_written_out(item, definitions, inside) for item in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if not isinstance(reference, str):
        return {name: _written_out(value, definitions, inside) for name, value in node.items() if name != "$defs"}
    name = reference.removeprefix(_REFERENCE)
    if name in inside:
        raise TypeError(f"{name} contains itself; the input of an action cannot be recursive")
    target = _written_out(definitions[name], definitions, (*inside, name))
    beside = {key: value for key, value in node.items() if key not in ("$ref", "$defs")}
    return {**target, **beside} if isinstance(target, dict) else target
