"""What the operations of the store mean; null is absence."""

from __future__ import annotations

from typing import Literal, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from millrace_sdk import ActionFailed, InputInvalid, Json, StoreOperation, apply_store_operation
from millrace_sdk.store import MAX_SAFE_INTEGER, MAX_VALUE_BYTES

Kind = Literal["put", "get", "delete", "increment", "append"]
VALUES = st.booleans() | st.integers(-100, 100) | st.text(max_size=5) | st.lists(st.integers(), max_size=3)


def applied(kind: Kind, current: Json, value: Json = None) -> tuple[Json, Json]:
    return apply_store_operation(current, StoreOperation(kind=kind, key="k", value=value))


@given(current=st.none() | VALUES, value=VALUES)
def test_what_was_put_is_got_and_what_was_deleted_is_gone(current: Json, value: Json) -> None:
    stored, output = applied("put", current, value)
    assert output == {"key": "k", "created": current is None}
    assert applied("get", stored, "default") == (value, {"key": "k", "found": True, "value": value})
    assert applied("delete", stored) == (None, {"key": "k", "deleted": True})
    assert applied("get", None, "default") == (None, {"key": "k", "found": False, "value": "default"})
    assert applied("delete", None) == (None, {"key": "k", "deleted": False})


@given(st.lists(st.integers(-1_000, 1_000), max_size=20))
def test_a_counter_holds_the_sum_of_what_was_added(amounts: list[int]) -> None:
    current: Json = None
    for amount in amounts:
        current, output = applied("increment", current, amount)
        assert output == {"key": "k", "value": current}
    assert (current or 0) == sum(amounts)


@given(st.lists(VALUES, max_size=10))
def test_a_list_holds_what_was_appended_in_order(values: list[Json]) -> None:
    current: Json = None
    for number, value in enumerate(values, 1):
        current, output = applied("append", current, value)
        assert output == {"key": "k", "length": number}
    assert (current or []) == values


def test_the_current_value_is_never_changed_in_place() -> None:
    current: list[Json] = [1]
    applied("append", current, 2)
    assert current == [1]


@pytest.mark.parametrize(
    ("kind", "current", "value"),
    [
        ("increment", "7", 1),
        ("increment", True, 1),
        ("increment", [], 1),
        ("append", {}, 1),
        ("append", "a", 1),
        ("append", 0, 1),
    ],
)
def test_a_value_of_another_type_is_left_alone_and_named(kind: Kind, current: Json, value: Json) -> None:
    with pytest.raises(ActionFailed, match="'k' holds") as failed:
        applied(kind, current, value)
    assert failed.value.kind == "STORE_WRONG_TYPE"
    assert not failed.value.retryable


def test_limits() -> None:
    with pytest.raises(ActionFailed) as failed:
        applied("increment", MAX_SAFE_INTEGER, 1)
    assert failed.value.kind == "STORE_TOO_LARGE"
    half: Json = "x" * (MAX_VALUE_BYTES // 2)
    with pytest.raises(ActionFailed) as failed:
        applied("append", [half], half)
    assert failed.value.kind == "STORE_TOO_LARGE"
    largest = "x" * (MAX_VALUE_BYTES - 2)
    assert applied("put", None, largest)[0] == largest


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), "1", True, MAX_SAFE_INTEGER + 1])
def test_a_counter_moves_by_a_number_only(value: Json) -> None:
    with pytest.raises(InputInvalid):
        StoreOperation(kind="increment", key="k", value=value)


def test_an_operation_survives_the_journal() -> None:
    operation = StoreOperation(kind="append", key="k", scope="flow", value={"a": [1]})
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(operation), type=StoreOperation) == operation
    assert cast("str", operation.scope) == "flow"
