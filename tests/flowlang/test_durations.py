"""Durations as authors write them."""

from __future__ import annotations

import pytest

from flowlang.durations import parse_duration_ms


@pytest.mark.parametrize(
    ("text", "duration_ms"),
    [
        ("500ms", 500),
        ("1s", 1_000),
        ("2m", 120_000),
        ("1h", 3_600_000),
        ("1.5s", 1_500),
        ("7d", 604_800_000),
        ("0s", 0),
    ],
)
def test_a_number_and_a_unit(text: str, duration_ms: int) -> None:
    assert parse_duration_ms(text) == duration_ms


@pytest.mark.parametrize("text", ["", "1", "s", "-1s", "1 s", "1w", "1e3s", "\u0661s", "9" * 13 + "s"])
def test_anything_else_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="write a number and a unit"):
        parse_duration_ms(text)
