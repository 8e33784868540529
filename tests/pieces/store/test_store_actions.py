"""What each store action asks for."""

import msgspec
import pytest
from millrace_sdk import InputInvalid, StoreAction, StoreOperation

from pieces.store import piece


def planned(name: str, **input: object) -> StoreOperation:
    action = piece.action(name)
    assert isinstance(action, StoreAction)
    return action.plan(action.decode(msgspec.json.encode(input)))


def test_each_action_is_one_operation() -> None:
    assert planned("put", key="k", value={"a": 1}) == StoreOperation(kind="put", key="k", value={"a": 1})
    assert planned("get", key="k", default=0, scope="flow") == StoreOperation(
        kind="get", key="k", scope="flow", value=0
    )
    assert planned("delete", key="k") == StoreOperation(kind="delete", key="k")
    assert planned("increment", key="k") == StoreOperation(kind="increment", key="k", value=1)
    assert planned("increment", key="k", by=-0.5) == StoreOperation(kind="increment", key="k", value=-0.5)
    assert planned("append", key="k", value=[]) == StoreOperation(kind="append", key="k", value=[])


def test_all_of_them_are_store_actions() -> None:
    assert {action.effect for action in piece.actions} == {"store"}


@pytest.mark.parametrize(
    ("name", "input"),
    [
        ("put", {"key": "", "value": 1}),
        ("put", {"key": "k" * 129, "value": 1}),
        ("put", {"key": "a\0b", "value": 1}),
        ("put", {"key": 7, "value": 1}),
        ("put", {"key": "k"}),
        ("put", {"key": "k", "value": None}),
        ("put", {"key": "k", "value": "x" * 524_287}),
        ("put", {"key": "k", "value": 1, "scope": "world"}),
        ("increment", {"key": "k", "by": "1"}),
        ("increment", {"key": "k", "by": True}),
        ("increment", {"key": "k", "by": 2**53}),
        ("append", {"key": "k", "value": None}),
    ],
)
def test_an_input_that_cannot_work_is_refused(name: str, input: dict[str, object]) -> None:
    with pytest.raises(InputInvalid):
        planned(name, **input)
