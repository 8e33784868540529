"""The piece that keeps values between runs: a key-value store of the project, or of one flow.

Decides: the fields of each operation.
Leaves: what an operation means to `millrace_sdk.store`; performing it, exactly once, to the executor, in the
transaction that makes the step's outcome durable.
"""

from __future__ import annotations

from typing import Annotated, Literal

from millrace_sdk import (
    Dropdown,
    Input,
    Json,
    JsonValue,
    Number,
    Piece,
    StoreOperation,
    Text,
    store_action,
)

Key = Annotated[str, Text("Key", "1 to 128 characters.", min_length=1, max_length=128)]
Scope = Annotated[
    Literal["project", "flow"],
    Dropdown("Shared with", labels={"project": "All flows of the project", "flow": "The runs of this flow"}),
]


class PutInput(Input):
    """Which key gets which value."""

    key: Key
    value: Annotated[Json, JsonValue("Value", "Any JSON but null, 512 KiB at most.")]
    scope: Scope = "project"


class GetInput(Input):
    """Which key to look up."""

    key: Key
    default: Annotated[Json, JsonValue("Default", "Given when the key holds nothing.")] = None
    scope: Scope = "project"


class DeleteInput(Input):
    """Which key to empty."""

    key: Key
    scope: Scope = "project"


class IncrementInput(Input):
    """Which counter to move, and by how much."""

    key: Key
    by: Annotated[int | float, Number("By", "Negative counts down.")] = 1
    scope: Scope = "project"


class AppendInput(Input):
    """Which list gets longer, and by what."""

    key: Key
    value: Annotated[Json, JsonValue("Value", "Added at the end of the list.")]
    scope: Scope = "project"


@store_action(title="Put a value", summary="Keeps a value under a key; gives {key, created}.")
def put(input: PutInput) -> StoreOperation:
    """Replace what the key holds."""
    return StoreOperation(kind="put", key=input.key, scope=input.scope, value=input.value)


@store_action(title="Get a value", summary="Looks a key up; gives {key, found, value}.")
def get(input: GetInput) -> StoreOperation:
    """Look a key up, in order with the other operations of the run."""
    return StoreOperation(kind="get", key=input.key, scope=input.scope, value=input.default)


@store_action(title="Delete a key", summary="Empties a key; gives {key, deleted}.")
def delete(input: DeleteInput) -> StoreOperation:
    """Empty a key; an empty one stays so."""
    return StoreOperation(kind="delete", key=input.key, scope=input.scope)


@store_action(title="Count", summary="Adds to the number under a key, from 0; gives {key, value}.")
def increment(input: IncrementInput) -> StoreOperation:
    """Add to a counter."""
    return StoreOperation(kind="increment", key=input.key, scope=input.scope, value=input.by)


@store_action(title="Append to a list", summary="Adds a value to the list under a key; gives {key, length}.")
def append(input: AppendInput) -> StoreOperation:
    """Add to the end of a list."""
    return StoreOperation(kind="append", key=input.key, scope=input.scope, value=input.value)


piece = Piece(
    name="store",
    version="0.1.0",
    title="Store",
    summary="Keeps values between runs, each change exactly once.",
    actions=[put, get, delete, increment, append],
)
