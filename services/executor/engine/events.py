"""What the driver tells the engine.

Decides: the events and what each must carry. Times are milliseconds since 1970, from the driver's clock.
Leaves: what they cause to machine.py.
An event whose `ref` is not awaited (late, repeated, from before a recovery) changes nothing.
Outputs come masked: the driver has replaced every secret in `output`, `console` and `message`.
"""

from __future__ import annotations

import msgspec

from services.executor.engine.commands import Ref


class Evaluated(msgspec.Struct, frozen=True):
    """The values of the expressions, in order, as one JSON array."""

    ref: Ref
    values: bytes
    now_ms: int


class EvaluationFailed(msgspec.Struct, frozen=True):
    """An expression threw, ran too long or used too much memory. Never retried."""

    ref: Ref
    message: str
    now_ms: int
    kind: str = "EXPRESSION_FAILED"


class CodeFinished(msgspec.Struct, frozen=True):
    """A code step returned `output` (JSON). `console` is what it printed, a JSON document, opaque here."""

    ref: Ref
    output: bytes
    console: bytes
    now_ms: int


class ActionFinished(msgspec.Struct, frozen=True):
    """An action returned `output` (JSON)."""

    ref: Ref
    output: bytes
    now_ms: int
    console: bytes = b""


class StepFailedEvent(msgspec.Struct, frozen=True):
    """An attempt failed. `retryable`: the step's retry policy applies.

    `retry_after_ms`: wait at least so long. `unknown`: whether the effect happened is not known (the connection broke
    after sending): treated as a time-out is.
    """

    ref: Ref
    kind: str
    message: str
    retryable: bool
    now_ms: int
    retry_after_ms: int = 0
    console: bytes = b""
    unknown: bool = False


class TimedOut(msgspec.Struct, frozen=True):
    """The command's `timeout_ms` passed (counted from when it was carried out); the call was given up."""

    ref: Ref
    now_ms: int
    console: bytes = b""


class Woken(msgspec.Struct, frozen=True):
    """A Sleep is over."""

    ref: Ref
    now_ms: int


class CancelRequested(msgspec.Struct, frozen=True):
    """End the run as canceled; effects in flight are recorded as interrupted, their outcome unknown."""

    now_ms: int


Event = (
    Evaluated | EvaluationFailed | CodeFinished | ActionFinished | StepFailedEvent | TimedOut | Woken | CancelRequested
)
