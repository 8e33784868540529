"""Ids of triggers and steps and the names of flows: what they may look like; fresh ids for copies.

Decides: the pattern, the names that mean something else in expressions, how a copy is called.
Leaves: that ids are unique to validate.py and operations.py.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container

from flowlang.javascript import GLOBALS, RESERVED

ID_LIMIT = 64
RESERVED_IDS = (
    RESERVED | GLOBALS | {"trigger", "connections", "variables", "run", "item", "index", "error", "step", "steps"}
)
"""Names that mean something else in expressions."""

_ID = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}", re.ASCII)
_NUMBERED = re.compile(r"_\d{1,6}$", re.ASCII)


def fault_in_id(name: str) -> str:
    """What is wrong with an id, as a sentence; empty when it can be used."""
    if not _ID.fullmatch(name):
        return f"The id `{name}` must begin with a letter and hold letters, digits and `_` alone, {ID_LIMIT} at most."
    if name in RESERVED_IDS:
        return f"The id `{name}` means something else in expressions; choose another."
    return ""


def has_controls(name: str) -> bool:
    """Whether a text for people holds characters that steer terminals and databases: controls, line breaks, halves."""
    return any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name)


def fresh_id(name: str, taken: Container[str]) -> str:
    """The name itself when it is free, else the name with the first free number: `ship`, `ship_2`, `ship_3`."""
    if name not in taken:
        return name
    base = _NUMBERED.sub("", name)
    number = 2
    while True:
        suffix = f"_{number}"
        candidate = base[: ID_LIMIT - len(suffix)] + suffix
        if candidate not in taken:
            return candidate
        number += 1
