"""When each operator holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlang.conditions import OPERATORS, holds, truthy
from flowlang.model import Json
from flowlang.patterns import PATTERN_LIMIT, TEXT_LIMIT, fault_in_pattern
from tests.flowlang.strategies import json_values

operators = st.sampled_from(sorted(OPERATORS))
NEGATIONS = [
    ("equals", "does_not_equal"),
    ("contains", "does_not_contain"),
    ("starts_with", "does_not_start_with"),
    ("ends_with", "does_not_end_with"),
    ("matches", "does_not_match"),
    ("number_equals", "number_does_not_equal"),
    ("is_true", "is_false"),
    ("list_contains", "list_does_not_contain"),
    ("list_is_empty", "list_is_not_empty"),
    ("exists", "does_not_exist"),
]


@given(left=json_values(), right=json_values(), op=operators, case_sensitive=st.booleans())
def test_no_value_makes_an_operator_raise(left: Json, right: Json, op: str, case_sensitive: bool) -> None:
    assert holds([left, right], op, case_sensitive) in (True, False)


@given(left=json_values(), right=json_values(), pair=st.sampled_from(NEGATIONS), case_sensitive=st.booleans())
def test_an_operator_and_its_negation_never_hold_both(
    left: Json, right: Json, pair: tuple[str, str], case_sensitive: bool
) -> None:
    assert not (holds([left, right], pair[0], case_sensitive) and holds([left, right], pair[1], case_sensitive))


@given(left=st.text(), right=st.text(), pair=st.sampled_from(NEGATIONS[:4]), case_sensitive=st.booleans())
def test_for_texts_exactly_one_of_operator_and_negation_holds(
    left: str, right: str, pair: tuple[str, str], case_sensitive: bool
) -> None:
    assert holds([left, right], pair[0], case_sensitive) != holds([left, right], pair[1], case_sensitive)


@given(left=st.integers() | st.floats(allow_nan=False, allow_infinity=False), right=st.integers(-5, 5))
def test_numbers_are_in_one_order(left: float, right: int) -> None:
    found = [op for op in ("less_than", "number_equals", "greater_than") if holds([left, right], op)]
    assert len(found) == 1 or abs(left) > 10**300
    assert holds([left, right], "less_or_equal") == (found[:1] in (["less_than"], ["number_equals"]))


def test_an_unknown_operator_never_holds() -> None:
    assert not holds(["a", "a"], "same_as")
    assert not holds([], "equals_")


@pytest.mark.parametrize(
    ("left", "op", "right"),
    [
        ("Order 7", "contains", "7"),
        ("Order 7", "contains", 7),
        (None, "equals", ""),
        (12.0, "equals", "12"),
        (True, "equals", "true"),
        ("a1", "matches", r"^[a-z]\d$"),
        ("xa1x", "matches", r"\d"),
        ("b", "does_not_match", r"\d"),
        (" 12.5 ", "greater_than", 12),
        ("1e3", "number_equals", 1000),
        (3, "greater_or_equal", "3"),
        (-1, "less_than", 0),
        (True, "is_true", None),
        (" TRUE ", "is_true", None),
        ("false", "is_false", None),
        ("2026-05-01T10:00:00+02:00", "date_equals", "2026-05-01T08:00:00Z"),
        ("2026-05-01", "date_equals", "2026-05-01T00:00:00Z"),
        ("2026-05-01T23:30:00-05:00", "date_after", "2026-05-02T04:00:00Z"),
        ("Fri, 01 May 2026 08:00:00 GMT", "date_before", "2026-05-01T08:00:00.001Z"),
        (0, "date_equals", "1970-01-01"),
        ([1, "b"], "list_contains", "1"),
        ([{"a": 1, "b": 2.0}], "list_contains", {"b": 2, "a": 1}),
        (None, "list_does_not_contain", "x"),
        ([], "list_is_empty", None),
        (None, "list_is_empty", None),
        ([None], "list_is_not_empty", None),
        (False, "exists", None),
        ("", "exists", None),
        (None, "does_not_exist", None),
    ],
)
def test_holds(left: Json, op: str, right: Json) -> None:
    assert holds([left, right], op)


@pytest.mark.parametrize(
    ("left", "op", "right"),
    [
        ([1], "contains", "1"),
        ([1], "does_not_contain", "2"),
        ({}, "does_not_equal", "x"),
        ("abc", "matches", "("),
        ("abc", "does_not_match", "("),
        ("abc", "matches", 5),
        ("", "number_equals", 0),
        (None, "less_than", 1),
        (True, "number_equals", 1),
        ("NaN", "number_does_not_equal", 1),
        ("12 pieces", "greater_than", 1),
        (1, "is_true", None),
        (None, "is_false", None),
        ("yesterday", "date_before", "2026-01-01"),
        ("2026-13-01", "date_after", "2020-01-01"),
        ("abc", "list_contains", "a"),
        ("abc", "list_does_not_contain", "x"),
        ([True], "list_contains", 1),
        ([None], "list_contains", ""),
        ("", "list_is_empty", None),
        ({}, "list_is_not_empty", None),
    ],
)
def test_does_not_hold(left: Json, op: str, right: Json) -> None:
    assert not holds([left, right], op)


@pytest.mark.parametrize("op", ["equals", "contains", "starts_with", "ends_with", "matches"])
def test_case_counts_only_where_asked(op: str) -> None:
    assert holds(["STRASSE", "strasse"], op, case_sensitive=False)
    assert not holds(["STRASSE", "strasse"], op, case_sensitive=True)


def test_a_list_is_searched_without_case_where_asked() -> None:
    assert holds([["Blue"], "blue"], "list_contains", case_sensitive=False)
    assert not holds([["Blue"], "blue"], "list_contains", case_sensitive=True)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(x+x+)+y", "(a|aa)+$", "(.*)*z"])
def test_evil_patterns_end(pattern: str) -> None:
    assert holds(["a" * 100_000 + "!", pattern], "matches") in (True, False)


def test_patterns_and_texts_out_of_bounds_do_not_hold() -> None:
    assert not holds(["a", "a" * (PATTERN_LIMIT + 1)], "matches")
    assert not holds(["a" * (TEXT_LIMIT + 1), "a"], "matches")
    assert not holds(["a" * (TEXT_LIMIT + 1), "a"], "does_not_match")


def test_a_pattern_that_cannot_be_used_is_named() -> None:
    assert fault_in_pattern("^[a-z]+$") == ""
    assert "missing )" in fault_in_pattern("(a")
    assert "look-around" in fault_in_pattern("(?=a)")
    assert str(PATTERN_LIMIT) in fault_in_pattern("a" * (PATTERN_LIMIT + 1))


@pytest.mark.parametrize(
    ("value", "expected"), [(0, False), ("", False), (None, False), ([], True), ({}, True), ("0", True)]
)
def test_a_free_expression_counts_as_in_javascript(value: Json, expected: bool) -> None:
    assert truthy(value) is expected


def test_every_operator_says_what_it_takes() -> None:
    assert all(name == operator.name and operator.title for name, operator in OPERATORS.items())
    assert {op for op, operator in OPERATORS.items() if operator.arity == 1} == {
        "is_true", "is_false", "list_is_empty", "list_is_not_empty", "exists", "does_not_exist",
    }  # fmt: skip
