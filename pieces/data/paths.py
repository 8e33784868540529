"""Places inside a value, written as `customer.address.0.city`.

Decides: how such a path is read; that a missing place is told apart from one that holds null.
Leaves: what a missing place means to each action. Names that contain dots cannot be reached; a code step can.
"""

from __future__ import annotations

from typing import Final

from millrace_sdk import InputInvalid, Json

MAX_PARTS = 50


class Missing:
    """There is nothing at that place, not even null."""


MISSING: Final = Missing()


def parts_of(path: str, field: str) -> list[str]:
    """The names of a path; none for the empty path, which is the value itself. Raises InputInvalid."""
    if not path:
        return []
    parts = path.split(".")
    if not all(parts) or len(parts) > MAX_PARTS:
        raise InputInvalid(f"{path!r} is no path; write names with dots between, as customer.name.", field=field)
    return parts


def look_up(value: Json, parts: list[str]) -> Json | Missing:
    """What stands at a place."""
    for part in parts:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isascii() and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return MISSING
    return value


def kind_of(value: Json | Missing) -> str:
    """What a value is, in words."""
    if isinstance(value, Missing):
        return "missing"
    words = {
        type(None): "null",
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
    }
    return words.get(type(value), "an object")
