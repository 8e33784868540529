"""From JSON to the typed input of an action, strictly.

Decides: that nothing is guessed or converted, and that a refusal names the field and says what to mend.
Leaves: which types there are to the piece.
"""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from .errors import InputInvalid
from .fields import Input

_WORDS = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "nothing (null)",
    "datetime": "a date with time (ISO 8601)",
    "date": "a date (ISO 8601)",
}
_AT = re.compile(r" - at `\$\.?([^`]*)`$")
_EXPECTED = re.compile(r"^Expected `([^`]+)`, got `([^`]+)`$")
_MISSING = re.compile(r"^Object missing required field `([^`]+)`$")
_UNKNOWN = re.compile(r"^Object contains unknown field `([^`]+)`$")

I = TypeVar("I", bound=Input)  # noqa: E741 - the one type variable of inputs


def decode_input(input_type: type[I], data: bytes) -> I:
    """Reads an input. Raises InputInvalid, naming the field, for anything that is not exactly of the declared type."""
    try:
        return msgspec.json.decode(data, type=input_type)
    except msgspec.ValidationError as error:
        raise _explained(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputInvalid(f"The input is no JSON: {error}.") from None
    except RecursionError:
        raise InputInvalid("The input is nested too deeply.") from None


def _explained(text: str) -> InputInvalid:
    at = _AT.search(text)
    path = at.group(1) if at else ""
    problem = text[: at.start()] if at else text
    if missing := _MISSING.match(problem):
        field = _joined(path, missing.group(1))
        return InputInvalid(f"Field `{field}` is missing. Fill it in.", field=field)
    if unknown := _UNKNOWN.match(problem):
        field = _joined(path, unknown.group(1))
        return InputInvalid(f"There is no field `{field}`. Remove it, or look for a typing error.", field=field)
    where = f"Field `{path}`" if path else "The input"
    if expected := _EXPECTED.match(problem):
        wanted, got = _words(expected.group(1)), _words(expected.group(2))
        hint = " The expression in it found no value." if expected.group(2) == "null" else ""
        return InputInvalid(f"{where} must be {wanted}, it is {got}.{hint}", field=path)
    return InputInvalid(f"{where} does not fit: {problem}.", field=path)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _words(types: str) -> str:
    return " or ".join(_WORDS.get(name, name) for name in types.split(" | "))
