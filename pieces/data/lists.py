"""Working on lists: filter, aggregate.

Decides: how items are compared and counted; that a wrong item is an error that names it, not a silent zero.
Leaves: finding places to paths.py. There are no patterns here: one evil pattern would stop the process.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Annotated, Literal

from millrace_sdk import Context, Dropdown, Input, InputInvalid, Json, JsonValue, ListOf, Text, action

from .paths import Missing, kind_of, look_up, parts_of

Operator = Literal[
    "equals",
    "not_equals",
    "greater_than",
    "greater_or_equal",
    "less_than",
    "less_or_equal",
    "contains",
    "not_contains",
    "starts_with",
    "ends_with",
    "exists",
    "not_exists",
]


class FilterInput(Input):
    """Which items stay."""

    items: Annotated[list[Json], ListOf("List")]
    operator: Annotated[Operator, Dropdown("Keep items where it")]
    path: Annotated[str, Text("Place in the item", "As customer.age; empty for the item itself.", max_length=200)] = ""
    value: Annotated[Json, JsonValue("Value", "What to compare with.")] = None


@action(
    name="filter",
    title="Filter a list",
    summary="Keeps the items of a list that fit; gives {items, count}.",
    effect="pure",
)
async def filter_list(ctx: Context, input: FilterInput) -> Json:  # noqa: ARG001 - every action takes a context
    """The items that fit, in order. An item where the place is missing, or of a kind that cannot be compared, does not
    fit.
    """
    parts = parts_of(input.path, "path")
    if input.operator in ("starts_with", "ends_with") and not isinstance(input.value, str):
        raise InputInvalid(
            f"Field `value` must be a text for {input.operator}, it is {kind_of(input.value)}.", field="value"
        )
    kept = [item for item in input.items if _fits(look_up(item, parts), input.operator, input.value)]
    return {"items": kept, "count": len(kept)}


def _fits(left: Json | Missing, operator: Operator, right: Json) -> bool:
    match operator:
        case "exists":
            return not isinstance(left, Missing) and left is not None
        case "not_exists":
            return isinstance(left, Missing) or left is None
        case "equals":
            return not isinstance(left, Missing) and _same(left, right)
        case "not_equals":
            return isinstance(left, Missing) or not _same(left, right)
        case "contains":
            return _contains(left, right)
        case "not_contains":
            return not _contains(left, right)
        case "starts_with":
            return isinstance(left, str) and isinstance(right, str) and left.startswith(right)
        case "ends_with":
            return isinstance(left, str) and isinstance(right, str) and left.endswith(right)
        case _:
            return _ordered(left, operator, right)


def _same(left: Json, right: Json) -> bool:
    """Equal as JSON: 1 is 1.0, but true is not 1, at any depth."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(_same(one, other) for one, other in zip(left, right, strict=True))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(value, right[name]) for name, value in left.items())
    return left == right


def _contains(left: Json | Missing, right: Json) -> bool:
    if isinstance(left, str):
        return isinstance(right, str) and right in left
    return isinstance(left, list) and any(_same(item, right) for item in left)


def _ordered(left: Json | Missing, operator: Operator, right: Json) -> bool:
    difference = _compare(left, right)
    if difference is None:
        return False
    if operator == "greater_than":
        return difference > 0
    if operator == "greater_or_equal":
        return difference >= 0
    if operator == "less_than":
        return difference < 0
    return difference <= 0


def _compare(left: Json | Missing, right: Json) -> int | None:
    """Below, at or above 0; None for what has no order: only numbers with numbers and texts with texts have one."""
    if isinstance(left, str) and isinstance(right, str):
        return (left > right) - (left < right)
    if isinstance(left, bool) or isinstance(right, bool):
        return None
    if isinstance(left, int | float) and isinstance(right, int | float):
        return (left > right) - (left < right)
    return None


class AggregateInput(Input):
    """What to work out from which numbers."""

    items: Annotated[list[Json], ListOf("List")]
    operation: Annotated[
        Literal["count", "sum", "min", "max", "avg"],
        Dropdown("Work out", labels={"count": "How many", "min": "Smallest", "max": "Largest", "avg": "Average"}),
    ]
    path: Annotated[str, Text("Place in the item", "As price; empty for the item itself.", max_length=200)] = ""


@action(
    title="Sum up a list",
    summary="Counts, adds, averages, finds smallest and largest; gives {value, count}.",
    effect="pure",
)
async def aggregate(ctx: Context, input: AggregateInput) -> Json:  # noqa: ARG001 - every action takes a context
    """Work out one number. Of an empty list the sum is 0, and smallest, largest and average are null.

    `count` counts the items where the place is there and not null; the others need a number there and name the first
    item that has none (InputInvalid).
    """
    parts = parts_of(input.path, "path")
    values = [look_up(item, parts) for item in input.items]
    if input.operation == "count":
        count = sum(1 for value in values if not isinstance(value, Missing) and value is not None)
        return {"value": count, "count": count}
    numbers = [_number(value, index, input.path) for index, value in enumerate(values)]
    try:
        return {"value": _worked_out(numbers, input.operation), "count": len(numbers)}
    except OverflowError:
        raise InputInvalid("The numbers are too large to work with.", field="items") from None


def _worked_out(numbers: list[int | float], operation: str) -> int | float | None:
    if operation == "sum":
        return _total(numbers)
    if not numbers:
        return None
    if operation == "min":
        return min(numbers)
    if operation == "max":
        return max(numbers)
    exact = sum(map(Fraction, numbers)) / len(numbers)
    return float(exact)


def _total(numbers: list[int | float]) -> int | float:
    """Exact: whole numbers stay whole, fractions are rounded once, at the end."""
    if all(isinstance(number, int) for number in numbers):
        return sum(numbers)
    return math.fsum(numbers)


def _number(value: Json | Missing, index: int, path: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        where = f"Item {index}" + (f" at {path}" if path else "")
        raise InputInvalid(f"{where} must be a number, it is {kind_of(value)}.", field=f"items[{index}]")
    return value
