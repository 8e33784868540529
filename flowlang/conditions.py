"""Conditions of routers: the operators, their names, and when each holds.

Decides: which operators there are and how values are coerced for each.
Leaves: resolving operands to expressions.py, which branch is taken to the engine.
Invariant: `holds` never raises. A value of a wrong type makes any operator false, its negation too:

| group | takes | null |
|---|---|---|
| text | text; number and boolean as JavaScript prints them | the empty text |
| number | number; text that spells one (`" 12.5 "`, `"1e3"`) | wrong type |
| boolean | true, false; the texts `true` and `false` in any case | wrong type |
| date | ISO 8601 and RFC 5322 text, without a zone in UTC; number: milliseconds since 1970 | wrong type |
| list | list on the left; items compare by text when both are scalars, else as JSON | the empty list |
| any | anything: exists means not null | does not exist |

A date without time is its midnight in UTC. Dates compare to the millisecond.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from math import isfinite
from operator import eq, ge, gt, le, lt, ne
from typing import Literal, NamedTuple

from flowlang.model import Json
from flowlang.patterns import found_in
from flowlang.values import as_javascript, as_text, canonical_json

Group = Literal["text", "number", "boolean", "date", "list", "any"]
_Test = Callable[[Json, Json, bool], bool]


class Operator(NamedTuple):
    """One operator: what it is called, what it compares, how many operands it takes, when it holds."""

    name: str
    title: str
    group: Group
    arity: Literal[1, 2]
    test: _Test


def holds(condition_values: Sequence[Json], op: str, case_sensitive: bool = True) -> bool:
    """Whether the comparison of the values (left, then right) holds. False for an unknown operator."""
    operator = OPERATORS.get(op)
    if operator is None:
        return False
    left = condition_values[0] if condition_values else None
    right = condition_values[1] if len(condition_values) > 1 else None
    return operator.test(left, right, case_sensitive)


def truthy(value: Json) -> bool:
    """Whether a free expression's value counts as true, as in JavaScript: empty lists and objects do."""
    return isinstance(value, list | dict) or bool(value)


def _text(compare: Callable[[str, str], bool], *, expected: bool = True) -> _Test:
    def test(left: Json, right: Json, case_sensitive: bool) -> bool:
        if isinstance(left, list | dict) or isinstance(right, list | dict):
            return False
        left_text, right_text = as_text(left), as_text(right)
        if not case_sensitive:
            left_text, right_text = left_text.casefold(), right_text.casefold()
        return compare(left_text, right_text) is expected

    return test


def _pattern(*, expected: bool) -> _Test:
    def test(left: Json, right: Json, case_sensitive: bool) -> bool:
        if isinstance(left, list | dict) or not isinstance(right, str):
            return False
        return found_in(right, as_text(left), case_sensitive=case_sensitive) is expected

    return test


_NUMBER = re.compile(r"[+-]?(?:\d{1,400}(?:\.\d{0,400})?|\.\d{1,400})(?:[eE][+-]?\d{1,4})?", re.ASCII)


def as_number(value: Json) -> float | None:
    """The number that a value is or spells; None for anything else."""
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value.strip()):
            return None
        value = float(value)
    value = as_javascript(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
        return value
    return None


def _number(compare: Callable[[float, float], bool]) -> _Test:
    def test(left: Json, right: Json, _case_sensitive: bool) -> bool:
        left_number, right_number = as_number(left), as_number(right)
        return left_number is not None and right_number is not None and compare(left_number, right_number)

    return test


def _boolean(expected: bool) -> _Test:
    def test(left: Json, _right: Json, _case_sensitive: bool) -> bool:
        if isinstance(left, str):
            return left.strip().lower() == ("true" if expected else "false")
        return left is expected

    return test


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_DATE_TEXT_LIMIT = 64


def as_instant_ms(value: Json) -> int | None:
    """The instant that a value means, in milliseconds since 1970; None when it means none."""
    if isinstance(value, str):
        moment = _moment(value.strip()) if len(value) <= _DATE_TEXT_LIMIT else None
        return None if moment is None else (moment - _EPOCH) // _MILLISECOND
    number = as_number(value)
    return None if number is None else int(number)


def _moment(text: str) -> datetime | None:
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = read(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return None


def _date(compare: Callable[[int, int], bool]) -> _Test:
    def test(left: Json, right: Json, _case_sensitive: bool) -> bool:
        left_ms, right_ms = as_instant_ms(left), as_instant_ms(right)
        return left_ms is not None and right_ms is not None and compare(left_ms, right_ms)

    return test


def _list_contains(*, expected: bool) -> _Test:
    def test(left: Json, right: Json, case_sensitive: bool) -> bool:
        items: Json = [] if left is None else left
        if not isinstance(items, list):
            return False
        wanted = _comparable(right, case_sensitive)
        return any(_comparable(item, case_sensitive) == wanted for item in items) is expected

    return test


def _comparable(value: Json, case_sensitive: bool) -> str | bytes | None:
    if value is None:
        return None
    if isinstance(value, list | dict):
        return canonical_json(value)
    text = as_text(value)
    return text if case_sensitive else text.casefold()


def _list_is_empty(*, expected: bool) -> _Test:
    def test(left: Json, _right: Json, _case_sensitive: bool) -> bool:
        items: Json = [] if left is None else left
        return isinstance(items, list) and (not items) is expected

    return test


def _exists(*, expected: bool) -> _Test:
    return lambda left, _right, _case_sensitive: (left is not None) is expected


def _contains(text: str, part: str) -> bool:
    return part in text


_ALL = (
    Operator("equals", "Text is", "text", 2, _text(eq)),
    Operator("does_not_equal", "Text is not", "text", 2, _text(eq, expected=False)),
    Operator("contains", "Text contains", "text", 2, _text(_contains)),
    Operator("does_not_contain", "Text does not contain", "text", 2, _text(_contains, expected=False)),
    Operator("starts_with", "Text starts with", "text", 2, _text(str.startswith)),
    Operator("does_not_start_with", "Text does not start with", "text", 2, _text(str.startswith, expected=False)),
    Operator("ends_with", "Text ends with", "text", 2, _text(str.endswith)),
    Operator("does_not_end_with", "Text does not end with", "text", 2, _text(str.endswith, expected=False)),
    Operator("matches", "Text matches a regular expression", "text", 2, _pattern(expected=True)),
    Operator("does_not_match", "Text does not match a regular expression", "text", 2, _pattern(expected=False)),
    Operator("greater_than", "Number is greater than", "number", 2, _number(gt)),
    Operator("greater_or_equal", "Number is at least", "number", 2, _number(ge)),
    Operator("less_than", "Number is less than", "number", 2, _number(lt)),
    Operator("less_or_equal", "Number is at most", "number", 2, _number(le)),
    Operator("number_equals", "Number is", "number", 2, _number(eq)),
    Operator("number_does_not_equal", "Number is not", "number", 2, _number(ne)),
    Operator("is_true", "Is true", "boolean", 1, _boolean(True)),
    Operator("is_false", "Is false", "boolean", 1, _boolean(False)),
    Operator("date_before", "Date is before", "date", 2, _date(lt)),
    Operator("date_equals", "Date is the same instant as", "date", 2, _date(eq)),
    Operator("date_after", "Date is after", "date", 2, _date(gt)),
    Operator("list_contains", "List contains", "list", 2, _list_contains(expected=True)),
    Operator("list_does_not_contain", "List does not contain", "list", 2, _list_contains(expected=False)),
    Operator("list_is_empty", "List is empty", "list", 1, _list_is_empty(expected=True)),
    Operator("list_is_not_empty", "List is not empty", "list", 1, _list_is_empty(expected=False)),
    Operator("exists", "Exists", "any", 1, _exists(expected=True)),
    Operator("does_not_exist", "Does not exist", "any", 1, _exists(expected=False)),
)

OPERATORS: dict[str, Operator] = {operator.name: operator for operator in _ALL}
"""Every operator by its name in documents."""
