"""Renaming of steps inside expressions.

Decides: which names in an expression mean a step (free names; below a loop's id also its steps) and are written anew.
Leaves: the ids themselves to editing.py. Code sources know only their `input` and need no change; a step's id inside a
quoted text of an expression is text and stays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from flowlang.expressions import Expression, ExpressionError, expressions_in
from flowlang.javascript import Token, declared_names, free_names


def renamer(new_names: Mapping[str, str], loops: Mapping[str, Collection[str]]) -> Callable[[str], str]:
    """A function that rewrites a text's expressions: old id → new id. `loops`: the loops around each old id."""

    def rename(text: str) -> str:
        try:
            found = expressions_in(text)
        except ExpressionError:
            return text
        edits = [edit for expression in found for edit in _edits(expression, new_names, loops)]
        for start, end, new in sorted(edits, reverse=True):
            text = text[:start] + new + text[end:]
        return text

    return rename


Edit = tuple[int, int, str]


def _edits(
    expression: Expression, new_names: Mapping[str, str], loops: Mapping[str, Collection[str]]
) -> Iterator[Edit]:
    tokens = list(expression.tokens)
    own = declared_names(tokens)
    places = {token.start: index for index, token in enumerate(tokens)}
    shorthand = _shorthand_places(tokens)
    for token in free_names(tokens):
        if token.text in own:
            continue
        index = places[token.start]
        if new := new_names.get(token.text):
            yield token.start, token.end, f"{token.text}: {new}" if index in shorthand else new
        yield from _property_edit(tokens, index, new_names, loops)


def _property_edit(
    tokens: list[Token], index: int, new_names: Mapping[str, str], loops: Mapping[str, Collection[str]]
) -> Iterator[Edit]:
    """`each.ship` and `each['ship']`, where `each` is a loop around `ship`."""
    after = tokens[index + 1 : index + 5]
    if after and after[0].text == "?." and len(after) > 1 and after[1].text == "[":
        after = after[1:]
    if len(after) < 2 or after[0].text not in (".", "?.", "["):
        return
    key = after[1]
    quoted = key.kind == "string"
    name = key.text[1:-1] if quoted else key.text
    is_key = quoted if after[0].text == "[" else key.kind == "name"
    if is_key and name in new_names and tokens[index].text in loops.get(name, ()):
        new = new_names[name]
        yield key.start, key.end, f"{key.text[0]}{new}{key.text[0]}" if quoted else new


def _shorthand_places(tokens: list[Token]) -> set[int]:
    """Indices of names that are key and value at once: `{ order }` must become `{ order: new }`."""
    found: set[int] = set()
    around: list[str] = []
    for index, token in enumerate(tokens):
        if token.kind == "template":
            if token.text.startswith("}"):
                around.pop()
            if token.text.endswith("${"):
                around.append("${")
        elif token.text in ("(", "[", "{"):
            around.append(token.text)
        elif token.text in (")", "]", "}"):
            around.pop()
        elif token.kind == "name" and around and around[-1] == "{" and 0 < index < len(tokens) - 1:
            between = tokens[index - 1].text in ("{", ",") and tokens[index + 1].text in (",", "}")
            if between:
                found.add(index)
    return found
