"""Inputs against the JSON Schema that a piece declares, as far as they can be known before a run.

Decides: the subset of JSON Schema (type, properties, required, additionalProperties, items, enum, const, bounds,
lengths, pattern, anyOf, oneOf, allOf, local $ref) and what an expression may stand for: anything when it is the whole
text, a text when there is text around it.
Leaves: what a piece checks itself at run time. Keywords outside the subset are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from flowlang.expressions import ExpressionError, Place, expressions_in, field_path
from flowlang.model import Json
from flowlang.patterns import found_in
from flowlang.values import canonical_json

Schema = dict[str, Json]
_REF_HOPS = 32
_LISTED_VALUES = 12


class Mismatch(NamedTuple):
    """A place in an input that does not fit, and what to mend."""

    place: Place
    message: str
    reason: str


def check_input(value: dict[str, Json], schema: Schema, place: Place = ("input",)) -> list[Mismatch]:
    """What does not fit. Names that the schema does not know are faults unless it allows additional ones."""
    if "properties" in schema and "additionalProperties" not in schema:
        schema = {**schema, "additionalProperties": False}
    return list(_Checker(schema).value(value, schema, place))


def is_single_expression(value: Json) -> bool:
    """Whether a value is one text that is one `{{ expression }}` and nothing else."""
    if not isinstance(value, str) or "{{" not in value:
        return False
    try:
        found = expressions_in(value)
    except ExpressionError:
        return False
    return len(found) == 1 and (found[0].start, found[0].end) == (0, len(value))


class _Checker:
    def __init__(self, root: Schema) -> None:
        self.root = root

    def value(self, value: Json, schema: Json, place: Place) -> Iterator[Mismatch]:
        """Everything in `value` that does not fit `schema`."""
        resolved = self._resolved(schema)
        if resolved is None:
            return
        if isinstance(value, str) and "{{" in value:
            if not is_single_expression(value) and not _fits_type("", resolved.get("type")):
                yield _wrong_type(place, resolved.get("type"), "a text")
            return
        if not _fits_type(value, resolved.get("type")):
            yield _wrong_type(place, resolved.get("type"), _name_of(value))
            return
        yield from self._combined(value, resolved, place)
        yield from _allowed(value, resolved, place)
        if isinstance(value, dict):
            yield from self._object(value, resolved, place)
        elif isinstance(value, list):
            yield from self._list(value, resolved, place)
        elif isinstance(value, str):
            yield from _text(value, resolved, place)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield from _number(value, resolved, place)

    def _resolved(self, schema: Json) -> Schema | None:
        for _ in range(_REF_HOPS):
            if not isinstance(schema, dict):
                return None
            ref = schema.get("$ref")
            if not isinstance(ref, str):
                return schema
            schema = self._target(ref)
        return None

    def _target(self, ref: str) -> Json:
        node: Json = self.root
        for part in ref.removeprefix("#").split("/")[1:]:
            node = node.get(part) if isinstance(node, dict) else None
        return node

    def _combined(self, value: Json, schema: Schema, place: Place) -> Iterator[Mismatch]:
        for part in _list_of(schema.get("allOf")):
            yield from self.value(value, part, place)
        for word in ("anyOf", "oneOf"):
            choices = _list_of(schema.get(word))
            results = [list(self.value(value, choice, place)) for choice in choices]
            if choices and all(results):
                yield from self._nearest(value, choices, results, place)

    def _nearest(
        self, value: Json, choices: list[Json], results: list[list[Mismatch]], place: Place
    ) -> Iterator[Mismatch]:
        """The faults of the one choice of the right type; otherwise what types there are."""
        schemas = [self._resolved(choice) or {} for choice in choices]
        near = [
            result for schema, result in zip(schemas, results, strict=True) if _fits_type(value, schema.get("type"))
        ]
        if len(near) == 1:
            yield from near[0]
        elif near:
            yield Mismatch(place, f"{_at(place)} fits none of the forms that are allowed here.", "INPUT_NOT_ALLOWED")
        else:
            types: list[Json] = [kind for schema in schemas for kind in _types(schema.get("type"))]
            yield _wrong_type(place, types, _name_of(value))

    def _object(self, value: dict[str, Json], schema: Schema, place: Place) -> Iterator[Mismatch]:
        properties = schema.get("properties")
        known = properties if isinstance(properties, dict) else {}
        for name in _list_of(schema.get("required")):
            if isinstance(name, str) and name not in value:
                yield Mismatch((*place, name), f"{_at((*place, name))} is missing; give it a value.", "INPUT_MISSING")
        others = schema.get("additionalProperties", True)
        for name, part in value.items():
            if name in known:
                yield from self.value(part, known[name], (*place, name))
            elif others is False:
                names = ", ".join(sorted(known)) or "none"
                message = f"{_at((*place, name))} is not known; take it out or correct its name (known: {names})."
                yield Mismatch((*place, name), message, "INPUT_UNKNOWN")
            elif isinstance(others, dict):
                yield from self.value(part, others, (*place, name))

    def _list(self, value: list[Json], schema: Schema, place: Place) -> Iterator[Mismatch]:
        yield from _bounds(len(value), schema, ("minItems", "maxItems"), place, "items")
        if "items" in schema:
            for index, part in enumerate(value):
                yield from self.value(part, schema["items"], (*place, index))


def _at(place: Place) -> str:
    return f"`{field_path(place[1:] or place)}`"


def _list_of(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


_NAMES = {
    "string": "a text", "integer": "a whole number", "number": "a number", "boolean": "true or false",
    "array": "a list", "object": "an object", "null": "null",
}  # fmt: skip


def _types(wanted: Json) -> list[str]:
    return [kind for kind in (wanted if isinstance(wanted, list) else [wanted]) if isinstance(kind, str)]


def _type_of(value: Json) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    return {str: "string", list: "array", dict: "object"}[type(value)]


def _name_of(value: Json) -> str:
    return _NAMES[_type_of(value)]


def _fits_type(value: Json, wanted: Json) -> bool:
    types, actual = _types(wanted), _type_of(value)
    return not types or actual in types or (actual == "integer" and "number" in types)


def _wrong_type(place: Place, wanted: Json, actual: str) -> Mismatch:
    names = " or ".join(dict.fromkeys(_NAMES.get(kind, kind) for kind in _types(wanted)))
    return Mismatch(place, f"{_at(place)} must be {names}, not {actual}.", "INPUT_WRONG_TYPE")


def _allowed(value: Json, schema: Schema, place: Place) -> Iterator[Mismatch]:
    choices = [schema["const"]] if "const" in schema else _list_of(schema.get("enum"))
    if choices and canonical_json(value) not in [canonical_json(choice) for choice in choices]:
        listed = ", ".join(canonical_json(choice).decode() for choice in choices[:_LISTED_VALUES])
        yield Mismatch(place, f"{_at(place)} must be one of: {listed}.", "INPUT_NOT_ALLOWED")


def _text(value: str, schema: Schema, place: Place) -> Iterator[Mismatch]:
    yield from _bounds(len(value), schema, ("minLength", "maxLength"), place, "characters")
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and found_in(pattern, value, case_sensitive=True) is False:
        yield Mismatch(place, f"{_at(place)} must match the pattern `{pattern}`.", "INPUT_NOT_ALLOWED")


def _number(value: float, schema: Schema, place: Place) -> Iterator[Mismatch]:
    yield from _bounds(value, schema, ("minimum", "maximum"), place, "")
    low, high = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if isinstance(low, int | float) and value <= low:
        yield Mismatch(place, f"{_at(place)} must be more than {low}.", "INPUT_NOT_ALLOWED")
    if isinstance(high, int | float) and value >= high:
        yield Mismatch(place, f"{_at(place)} must be less than {high}.", "INPUT_NOT_ALLOWED")


def _bounds(size: float, schema: Schema, words: tuple[str, str], place: Place, unit: str) -> Iterator[Mismatch]:
    low, high = schema.get(words[0]), schema.get(words[1])
    have = f" have {{}} {unit}" if unit else " be {}"
    if isinstance(low, int | float) and size < low:
        yield Mismatch(place, f"{_at(place)} must{have.format(f'at least {low}')}.", "INPUT_NOT_ALLOWED")
    if isinstance(high, int | float) and size > high:
        yield Mismatch(place, f"{_at(place)} must{have.format(f'at most {high}')}.", "INPUT_NOT_ALLOWED")
