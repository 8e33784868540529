"""Operations on the key-value store, and what each of them means.

Decides: the operations, their limits, and their exact result (`apply_store_operation`).
Leaves: carrying them out to the executor's flush, which calls it on the current value inside the journal's own
transaction; that is why they happen exactly once.

Null is absence: a key that holds nothing reads as null, and null cannot be put.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from .errors import ActionFailed, InputInvalid
from .values import Json

MAX_KEY_LENGTH = 128
MAX_VALUE_BYTES = 512 * 1024
MAX_SAFE_INTEGER = 2**53 - 1
"""Beyond this a number loses digits in JavaScript, so a counter stops before it."""

StoreKind = Literal["put", "get", "delete", "increment", "append"]
StoreScope = Literal["project", "flow"]


class StoreOperation(msgspec.Struct, frozen=True, kw_only=True):
    """One operation on one key. Made by a store action, performed by the platform.

    `value`: what to put or append, the amount to increment by, or what `get` answers when nothing is there.
    """

    kind: StoreKind
    key: str
    scope: StoreScope = "project"
    value: Json = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.key) <= MAX_KEY_LENGTH:
            raise InputInvalid(
                f"A key has 1 to {MAX_KEY_LENGTH} characters, this one has {len(self.key)}.", field="key"
            )
        if "\0" in self.key:
            raise InputInvalid("A key cannot contain the character NUL.", field="key")
        if self.kind in ("put", "append"):
            _check_value(self.kind, self.value)
        if self.kind == "increment" and not _is_number(self.value):
            raise InputInvalid("A key is incremented by a number.", field="by")


def apply_store_operation(current: Json | None, operation: StoreOperation) -> tuple[Json | None, Json]:
    """What the operation makes of the current value: the new value (None: the key holds nothing) and the step's output.

    Pure, so that a replay gives the same. Raises ActionFailed STORE_WRONG_TYPE or STORE_TOO_LARGE; then nothing is
    changed.
    """
    match operation.kind:
        case "put":
            return operation.value, {"key": operation.key, "created": current is None}
        case "get":
            found = current is not None
            return current, {"key": operation.key, "found": found, "value": current if found else operation.value}
        case "delete":
            return None, {"key": operation.key, "deleted": current is not None}
        case "increment":
            total = _sum(operation.key, current, operation.value)
            return total, {"key": operation.key, "value": total}
        case "append":
            items = _appended(operation.key, current, operation.value)
            return items, {"key": operation.key, "length": len(items)}


def _sum(key: str, current: Json, amount: Json) -> int | float:
    if current is None:
        current = 0
    if isinstance(current, bool) or not isinstance(current, int | float):
        raise _wrong_type(key, current, "a number", "increment")
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        raise InputInvalid("A key is incremented by a number.", field="by")
    total = current + amount
    if not -MAX_SAFE_INTEGER <= total <= MAX_SAFE_INTEGER:
        raise ActionFailed(
            "STORE_TOO_LARGE", f"Key {key!r} would become {total}; numbers are exact up to {MAX_SAFE_INTEGER}."
        )
    return total


def _appended(key: str, current: Json, value: Json) -> list[Json]:
    if current is None:
        current = []
    if not isinstance(current, list):
        raise _wrong_type(key, current, "a list", "append")
    items = [*current, value]
    size = len(msgspec.json.encode(items))
    if size > MAX_VALUE_BYTES:
        raise ActionFailed(
            "STORE_TOO_LARGE",
            f"The list under {key!r} would be {size} bytes of at most {MAX_VALUE_BYTES}. Spread it over several keys.",
        )
    return items


def _check_value(kind: str, value: Json) -> None:
    if value is None:
        raise InputInvalid(
            f"There is nothing to {kind}: the value is null. To remove a key, use delete.", field="value"
        )
    try:
        size = len(msgspec.json.encode(value))
    except (TypeError, UnicodeEncodeError, RecursionError) as error:
        raise InputInvalid(f"The value cannot be written as JSON: {error}", field="value") from error
    if size > MAX_VALUE_BYTES:
        raise InputInvalid(f"The value is {size} bytes; a stored value has at most {MAX_VALUE_BYTES}.", field="value")


def _is_number(value: Json) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER  # false for NaN as well


def _wrong_type(key: str, current: Json, wanted: str, operation: str) -> ActionFailed:
    kind = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
    }[type(current)]
    message = f"Key {key!r} holds {kind}, {operation} needs {wanted}. Delete the key or use another one."
    return ActionFailed("STORE_WRONG_TYPE", message)
