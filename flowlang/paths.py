"""Plain paths: `a.b[0]['c']`, read without a JavaScript engine.

Decides: which expressions are plain and how they are read (the rules of values.py).
Leaves: all other expressions to the jail. A plain path never raises; what is missing is null.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from flowlang.javascript import GLOBALS, RESERVED, Token
from flowlang.model import Json
from flowlang.values import SAFE_INTEGER, as_javascript, get_property, list_index

Scope = Mapping[str, Json]


class Path(NamedTuple):
    """A root name and the keys below it; a key is a number where the author wrote a number."""

    root: str
    keys: tuple[str | int, ...] = ()


def parse_path(tokens: list[Token]) -> Path | None:
    """The plain path that these tokens spell, or None when they are any other expression."""
    if not tokens or not _is_root(tokens[0]):
        return None
    keys: list[str | int] = []
    at = 1
    while at < len(tokens):
        key, at = _next_key(tokens, at)
        if key is None:
            return None
        keys.append(key)
    return Path(tokens[0].text, tuple(keys))


def _is_root(token: Token) -> bool:
    return _is_name(token) and token.text not in RESERVED and token.text not in GLOBALS


def _is_name(token: Token) -> bool:
    return token.kind == "name" and token.text.replace("$", "_").isidentifier()


def _next_key(tokens: list[Token], at: int) -> tuple[str | int | None, int]:
    """One `.name`, `?.name`, `[0]`, `['x']` or `?.['x']`, and where the next begins."""
    if tokens[at].text in (".", "?."):
        after = tokens[at + 1 : at + 2]
        if after and _is_name(after[0]):
            return after[0].text, at + 2
        at += 1 if tokens[at].text == "?." else 0
    part = tokens[at : at + 3]
    if len(part) == 3 and part[0].text == "[" and part[2].text == "]":
        return _bracket_key(part[1]), at + 3
    return None, at


def _bracket_key(token: Token) -> str | int | None:
    if token.kind == "string" and "\\" not in token.text:
        return token.text[1:-1]
    if token.kind == "number" and list_index(token.text) >= 0:
        return int(token.text)
    return None


def compile_path(path: Path) -> Callable[[Scope], Json]:
    """A function that reads the path from a scope; made once a version, called at every run."""
    root = path.root
    steps = tuple((str(key), list_index(str(key))) for key in path.keys)

    def read(scope: Scope) -> Json:
        value = scope.get(root)
        for key, index in steps:
            if type(value) is dict:
                value = value.get(key)
            elif value is None:
                return None
            else:
                value = get_property(value, key, index)
        kind = type(value)
        if kind is str or (kind is int and -SAFE_INTEGER <= value <= SAFE_INTEGER):  # type: ignore[operator]  # an int
            return value
        return as_javascript(value)

    return read


def read_path(value: Json, keys: tuple[str | int, ...]) -> Json:
    """What the keys lead to below a value."""
    for key in keys:
        value = get_property(value, str(key), list_index(str(key)))
    return as_javascript(value)
