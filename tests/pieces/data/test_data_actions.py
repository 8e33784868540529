"""The data piece: each helper on good input, and exact about bad input."""

from __future__ import annotations

import pytest
from millrace_sdk import InputInvalid

from pieces.data import piece
from tests.pieces.calling import called

GOOD: list[tuple[str, dict[str, object], object]] = [
    ("set", {"fields": {"a": 1, "b": [None]}}, {"a": 1, "b": [None]}),
    ("merge", {"objects": [{"a": 1, "b": {"x": 1}}, {"b": {"y": 2}}]}, {"a": 1, "b": {"y": 2}}),
    (
        "merge",
        {"objects": [{"b": {"x": 1, "l": [1]}}, {"b": {"y": 2, "l": []}}], "deep": True},
        {"b": {"x": 1, "l": [], "y": 2}},
    ),
    ("pick", {"object": {"a": {"b": [5, 6]}, "c": None}, "fields": ["a.b.1", "c", "z"]}, {"a.b.1": 6, "c": None}),
    ("pick", {"object": {}, "fields": ["a"], "missing": "null"}, {"a": None}),
    ("filter", {"items": [1, 5, "x", True, None], "operator": "greater_than", "value": 1}, {"items": [5], "count": 1}),
    ("filter", {"items": [1, 1.0, True, "1"], "operator": "equals", "value": 1}, {"items": [1, 1.0], "count": 2}),
    (
        "filter",
        {"items": [{"a": [1]}, {"a": [True]}], "operator": "equals", "value": {"a": [1]}},
        {"items": [{"a": [1]}], "count": 1},
    ),
    (
        "filter",
        {"items": [{"n": "Ann"}, {"n": "Bob"}, {}], "operator": "starts_with", "path": "n", "value": "A"},
        {"items": [{"n": "Ann"}], "count": 1},
    ),
    (
        "filter",
        {"items": [{"a": None}, {"a": 0}, {}], "operator": "exists", "path": "a"},
        {"items": [{"a": 0}], "count": 1},
    ),
    ("filter", {"items": [[1], [2], "21"], "operator": "not_contains", "value": 2}, {"items": [[1], "21"], "count": 2}),
    (
        "filter",
        {"items": ["2026-01-02", "2025-12-31"], "operator": "less_than", "value": "2026"},
        {"items": ["2025-12-31"], "count": 1},
    ),
    ("aggregate", {"items": [1, 2, 3], "operation": "sum"}, {"value": 6, "count": 3}),
    ("aggregate", {"items": [0.1] * 10, "operation": "sum"}, {"value": 1.0, "count": 10}),
    ("aggregate", {"items": [2**60, 1], "operation": "sum"}, {"value": 2**60 + 1, "count": 2}),
    ("aggregate", {"items": [{"p": 2}, {"p": 5}], "operation": "avg", "path": "p"}, {"value": 3.5, "count": 2}),
    ("aggregate", {"items": [3, 1.5, 2], "operation": "min"}, {"value": 1.5, "count": 3}),
    ("aggregate", {"items": [3, 1.5, 2], "operation": "max"}, {"value": 3, "count": 3}),
    ("aggregate", {"items": [1, None, {"a": 1}], "operation": "count"}, {"value": 2, "count": 2}),
    ("aggregate", {"items": [], "operation": "sum"}, {"value": 0, "count": 0}),
    ("aggregate", {"items": [], "operation": "avg"}, {"value": None, "count": 0}),
    ("join", {"items": ["a", 1, 1.5, True, None, "ö"], "separator": "|"}, {"text": "a|1|1.5|true||ö"}),
    ("split", {"text": " a, b ,,c "}, {"items": ["a", "b", "", "c"], "count": 4}),
    ("split", {"text": "a.b.c", "separator": ".", "limit": 2}, {"items": ["a", "b.c"], "count": 2}),
    ("split", {"text": "a,,b", "skip_empty": True, "trim": False}, {"items": ["a", "b"], "count": 2}),
    ("split", {"text": "aXXb", "separator": "X+", "trim": False}, {"items": ["aXXb"], "count": 1}),
    ("parse_json", {"text": '{"a": [1, null]}'}, {"value": {"a": [1, None]}}),
    (
        "format_date",
        {"value": "2026-03-29T00:30:00Z", "timezone": "Europe/Berlin"},
        {"value": "2026-03-29T01:30:00+01:00"},
    ),
    (
        "format_date",
        {"value": "2026-03-29T01:30:00Z", "timezone": "Europe/Berlin"},
        {"value": "2026-03-29T03:30:00+02:00"},
    ),
    (
        "format_date",
        {"value": "2026-03-29 12:00", "timezone": "Europe/Berlin", "form": "epoch_s"},
        {"value": 1774778400},
    ),
    ("format_date", {"value": 1774778400123, "form": "iso"}, {"value": "2026-03-29T10:00:00.123+00:00"}),
    ("format_date", {"value": 1774778400, "unit": "s", "form": "date"}, {"value": "2026-03-29"}),
    ("format_date", {"value": "2026-03-29T10:00:01.5Z", "form": "time"}, {"value": "10:00:01"}),
    ("format_date", {"value": "2026-03-29T10:00:01.5Z", "form": "epoch_ms"}, {"value": 1774778401500}),
]

BAD: list[tuple[str, dict[str, object], str]] = [
    ("set", {"fields": []}, "`fields` must be an object"),
    ("merge", {"objects": []}, "`objects`"),
    ("merge", {"objects": [{}, 7]}, r"`objects\[1\]` must be an object, it is a whole number"),
    ("pick", {"object": {"a": 1}, "fields": ["a", "b"], "missing": "fail"}, "has no 'b'"),
    ("pick", {"object": {}, "fields": ["a..b"]}, "is no path"),
    ("filter", {"items": {}, "operator": "exists"}, "`items` must be a list"),
    ("filter", {"items": [], "operator": "matches", "value": "(a+)+$"}, "`operator`"),
    ("filter", {"items": [], "operator": "ends_with", "value": 1}, "must be a text"),
    ("aggregate", {"items": [1, "2"], "operation": "sum"}, "Item 1 must be a number, it is a text"),
    (
        "aggregate",
        {"items": [{"p": 1}, {}], "operation": "max", "path": "p"},
        "Item 1 at p must be a number, it is missing",
    ),
    ("aggregate", {"items": [True], "operation": "avg"}, "it is true or false"),
    ("aggregate", {"items": [1e308, 1e308], "operation": "sum"}, "too large"),
    ("aggregate", {"items": [10**400, 0.5], "operation": "avg"}, "too large"),
    ("join", {"items": [["a"]]}, r"`items\[0\]`"),
    ("split", {"text": "a", "separator": ""}, "`separator`"),
    ("split", {"text": "a", "limit": 0}, "`limit`"),
    ("parse_json", {"text": '{"a": }'}, "no JSON.*byte 6"),
    ("parse_json", {"text": "[" * 100_000}, "nested too deeply|no JSON"),
    ("format_date", {"value": "tomorrow"}, "is no moment"),
    ("format_date", {"value": 1e300}, "is no moment"),
    ("format_date", {"value": "0001-01-01T00:00:00Z", "timezone": "America/New_York"}, "is no moment"),
    ("format_date", {"value": 0, "timezone": "Mars/Base"}, "no time zone"),
    ("format_date", {"value": 0, "timezone": "../../etc/passwd"}, "no time zone"),
    ("format_date", {"value": 0, "timezone": "Europe"}, "no time zone"),
    ("format_date", {"value": True}, "`value`"),
]


@pytest.mark.parametrize(("name", "input", "output"), GOOD)
async def test_good_input(name: str, input: dict[str, object], output: object) -> None:
    assert await called(piece, name, input) == output


@pytest.mark.parametrize(("name", "input", "message"), BAD)
async def test_bad_input_is_named(name: str, input: dict[str, object], message: str) -> None:
    with pytest.raises(InputInvalid, match=message):
        await called(piece, name, input)


def test_all_of_it_is_pure() -> None:
    assert {action.effect for action in piece.actions} == {"pure"}


async def test_an_order_of_magnitude_is_kept_when_summing_up() -> None:
    output = await called(piece, "aggregate", {"items": [1e16, 1, -1e16], "operation": "avg"})
    assert output == {"value": 1 / 3, "count": 3}
