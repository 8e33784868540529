"""JSON values as JavaScript sees them: numbers, text, own properties.

Decides: how a number prints, what a property of a value is, how a value becomes text inside text.
Leaves: which path is read to paths.py. Both engines (this one for plain paths, V8 for the rest) give the same answer to
each of these rules; docs/expressions.md repeats them for authors.

| case | rule |
|---|---|
| integer beyond 2^53 | becomes the nearest double, also inside lists and objects; beyond the doubles: null |
| `-0` | becomes 0 |
| number in text | as JavaScript prints it: `1e+21`, `0.1`, `1` for 1.0 |
| missing root, property or index; property of null, a number, a boolean | missing: null alone, empty in text |
| null | null alone, empty in text |
| `length` of a list or text | number of items; of UTF-16 units |
| `length` of an object | its own property of that name, else missing |
| list index | a number or its canonical digits (`0`, `'0'`; not `'00'`, not `-1`) |
| object key | by its text, `a[0]` reads the key `"0"` |
| integer-like keys | come first, ascending, when an object becomes text |
| text index | one UTF-16 unit; half of a pair becomes U+FFFD |
| inherited names (`constructor`, `toString`, `__proto__`) | missing, unless the data holds them itself |
"""

from __future__ import annotations

from math import isfinite

import msgspec

from flowlang.model import Json

SAFE_INTEGER = 2**53
_INTEGER_KEY_LIMIT = 2**32 - 1


def number_text(number: float) -> str:
    """The number as JavaScript's `String(number)` prints it."""
    if isinstance(number, int) and -SAFE_INTEGER <= number <= SAFE_INTEGER:
        return str(number)
    try:
        number = float(number)
    except OverflowError:
        return "Infinity" if number > 0 else "-Infinity"
    if not isfinite(number):
        return "NaN" if number != number else "Infinity" if number > 0 else "-Infinity"
    if number == 0:
        return "0"
    return ("-" if number < 0 else "") + _digits_text(repr(abs(number)))


def _digits_text(shortest: str) -> str:
    """Python and JavaScript agree on the shortest digits, not on where exponents begin (1e16 here, 1e21 there)."""
    mantissa, _, exponent = shortest.partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        return digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return "0." + "0" * -point + digits
    tail = f".{digits[1:]}" if count > 1 else ""
    return f"{digits[0]}{tail}e{'+' if point > 0 else '-'}{abs(point - 1)}"


def as_javascript(value: Json) -> Json:
    """The value with its numbers as doubles hold them. The same object when nothing had to change."""
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return value
    if kind is int or kind is float:
        return _number(value)  # type: ignore[arg-type]  # its type was just compared
    return _rebuilt(value) if _holds_foreign_number(value) else value


def _number(number: float) -> Json:
    if type(number) is float:
        return 0 if number == 0 else number
    if -SAFE_INTEGER <= number <= SAFE_INTEGER:
        return number
    try:
        return float(number)
    except OverflowError:
        return None


def _holds_foreign_number(value: Json) -> bool:
    """Whether a number inside would change. Walks with a list: data may nest deeper than Python's stack."""
    todo = [value]
    while todo:
        node = todo.pop()
        for child in node.values() if type(node) is dict else node:  # type: ignore[union-attr]  # only containers are put in
            kind = type(child)
            if kind is str:
                continue
            if kind is dict or kind is list:
                todo.append(child)
            elif kind is int:
                if not -SAFE_INTEGER <= child <= SAFE_INTEGER:  # type: ignore[operator]  # an int
                    return True
            elif kind is float and child == 0:
                return True
    return False


def _rebuilt(value: Json) -> Json:
    top: list[Json] = [value]
    todo: list[list[Json] | dict[str, Json]] = [top]
    while todo:
        node = todo.pop()
        places = list(node.items()) if isinstance(node, dict) else list(enumerate(node))
        for place, child in places:
            new: Json = child
            if isinstance(child, dict | list):
                new = child.copy()
                todo.append(new)
            elif type(child) in (int, float):
                new = _number(child)  # type: ignore[arg-type]  # a number
            node[place] = new  # type: ignore[index]  # the place came from this node
    return top[0]


def get_property(value: Json, key: str, index: int) -> Json:
    """Own property `key` of a value (`index`: the same as a list index, -1 when it is none); None when missing."""
    if isinstance(value, dict):
        return value.get(key)
    if isinstance(value, list):
        if 0 <= index < len(value):
            return value[index]
        return len(value) if key == "length" else None
    if isinstance(value, str):
        return _text_property(value, key, index)
    return None


def _text_property(text: str, key: str, index: int) -> Json:
    if text.isascii():
        if 0 <= index < len(text):
            return text[index]
        return len(text) if key == "length" else None
    units = text.encode("utf-16-le", "surrogatepass")
    if 0 <= index < len(units) // 2:
        return units[2 * index : 2 * index + 2].decode("utf-16-le", "replace")
    return len(units) // 2 if key == "length" else None


def list_index(key: str) -> int:
    """The list index that a property key means; -1 when it is none."""
    if key.isascii() and key.isdigit() and (key == "0" or key[0] != "0") and len(key) <= 10:
        index = int(key)
        return index if index < _INTEGER_KEY_LIMIT else -1
    return -1


def as_text(value: Json) -> str:
    """The value inside mixed text: text as it is, nothing for null, objects and lists as compact JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return number_text(value)
    try:
        return msgspec.json.encode(_printable(value)).decode()
    except RecursionError:
        # Nested deeper than any limit on payloads lets in; an expression never raises.
        return ""


def canonical_json(value: Json) -> bytes:
    """One text for all values that are the same to JavaScript: keys sorted, numbers as printed; empty if too deep."""
    try:
        return msgspec.json.encode(_printable(value), order="sorted")
    except RecursionError:
        return b""


def _printable(value: Json) -> object:
    """A copy in which numbers are already printed and integer-like keys come first, as JSON.stringify writes them."""
    top: list[object] = [value]
    todo: list[list[object] | dict[str, object]] = [top]
    while todo:
        node = todo.pop()
        places = list(node.items()) if isinstance(node, dict) else list(enumerate(node))
        for place, child in places:
            new = child
            if isinstance(child, dict):
                new = _ordered(child)
                todo.append(new)
            elif isinstance(child, list):
                new = child.copy()
                todo.append(new)
            elif type(child) in (int, float):
                new = _printed(child)  # type: ignore[arg-type]  # a number
            node[place] = new  # type: ignore[index]  # the place came from this node
    return top[0]


def _printed(number: float) -> msgspec.Raw | None:
    text = number_text(number)
    return msgspec.Raw(text.encode()) if text[-1].isdigit() else None


def _ordered(value: dict[str, object]) -> dict[str, object]:
    first = sorted((key for key in value if list_index(key) >= 0), key=int)
    if not first:
        return value.copy()
    return {key: value[key] for key in first} | value
