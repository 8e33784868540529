"""The journal of a run: what happened, as entries; the only thing a run is recovered from.

Decides: which entries there are, what each one says, and how a chunk of them is written as bytes.
Leaves: when a chunk becomes durable to the flush; what an entry does to a run to replay.py; how it is shown to view.py.
Invariants: an entry is never changed once written; a later release adds entry kinds and trailing fields with defaults,
and never takes a number or a place away, so every journal ever written can be read.
Documents inside an entry are raw JSON bytes; an empty `input` means "as in the entry before, of the same step".
Times are milliseconds since 1970. `indices` are the loop indices from outside in, counted from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from flowlang.expressions import SecretSlot

Indices = tuple[int, ...]

RunStatus = Literal[
    "running", "succeeded", "failed", "canceled", "timed_out", "memory_exceeded", "log_too_large", "internal_error"
]
"""How a run stands. All but `running` are terminal."""


class RunError(msgspec.Struct, frozen=True, array_like=True):
    """Why a run or a loop's item failed: which step, which attempt, what kind, and a message for a person."""

    step_id: str
    indices: Indices
    attempt: int
    kind: str
    message: str


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """Base of the entries; written as an array that begins with the kind's number."""


class RunStarted(Entry, frozen=True, tag=1):
    """First entry of a run. `trigger_output` is the payload as intake packed it, unopened."""

    trigger_id: str
    trigger_output: bytes
    at_ms: int
    run_attempt: int = 1


class StepStarted(Entry, frozen=True, tag=2):
    """An effect is about to begin (I4): must be durable before the call. `n` is the number in the idempotency key."""

    step_id: str
    indices: Indices
    attempt: int
    n: int
    key: str
    input: bytes
    secrets: tuple[SecretSlot, ...]
    at_ms: int


class StepFinished(Entry, frozen=True, tag=3):
    """An action or code step has its outcome (I3). `input` is empty where an earlier entry already holds it."""

    step_id: str
    indices: Indices
    attempt: int
    input: bytes
    output: bytes
    console: bytes
    started_ms: int
    finished_ms: int


class StepFailed(Entry, frozen=True, tag=4):
    """An attempt failed. `retry_at_ms` > 0: it is tried again then. `continued`: the flow goes on without its output.

    `unknown`: whether the effect happened is not known (time-out), so the next attempt uses the same key.
    """

    step_id: str
    indices: Indices
    attempt: int
    kind: str
    message: str
    input: bytes
    secrets: tuple[SecretSlot, ...]
    console: bytes
    started_ms: int
    failed_ms: int
    retry_at_ms: int = 0
    continued: bool = False
    unknown: bool = False


class StepInterrupted(Entry, frozen=True, tag=5):
    """The run was cut off at this step. `takeovers` counts it, at this position.

    `key` is empty unless an effect had begun. `final`: the run ends here, and whether the effect happened is not known.
    """

    step_id: str
    indices: Indices
    attempt: int
    key: str
    takeovers: int
    at_ms: int
    final: bool = False


class BranchChosen(Entry, frozen=True, tag=6):
    """A router decided: the positions of the branches that run, in order."""

    step_id: str
    indices: Indices
    branches: tuple[int, ...]
    at_ms: int


class LoopStarted(Entry, frozen=True, tag=7):
    """A loop begins; `items` is the JSON list that it goes over."""

    step_id: str
    indices: Indices
    items: bytes
    count: int
    at_ms: int


class IterationFinished(Entry, frozen=True, tag=8):
    """Item `index` of a loop is done; no earlier entry of this iteration is needed any more.

    `collected` is its value for the loop's `items` (empty without `collect`), `error` why it failed.
    `begun`: once the loop has failed, how many items had been begun; no further one will be.
    """

    step_id: str
    indices: Indices
    index: int
    collected: bytes
    error: RunError | None
    at_ms: int
    begun: int = 0


class LoopFinished(Entry, frozen=True, tag=9):
    """A loop is done; `output` is what its id holds from now on."""

    step_id: str
    indices: Indices
    output: bytes
    at_ms: int


class Responded(Entry, frozen=True, tag=10):
    """A respond step answered. `ignored`: an answer was given before, this one is only noted."""

    step_id: str
    indices: Indices
    status: int
    headers: dict[str, str]
    body: bytes
    at_ms: int
    ignored: bool = False


class RunFinished(Entry, frozen=True, tag=11):
    """Last entry of a run attempt. `steps_finished` counts outcomes of action and code steps."""

    status: RunStatus
    error: RunError | None
    at_ms: int
    steps_finished: int = 0


class Noted(Entry, frozen=True, tag=12):
    """A remark for the log; changes nothing."""

    step_id: str
    indices: Indices
    text: str
    at_ms: int


AnyEntry = (
    RunStarted
    | StepStarted
    | StepFinished
    | StepFailed
    | StepInterrupted
    | BranchChosen
    | LoopStarted
    | IterationFinished
    | LoopFinished
    | Responded
    | RunFinished
    | Noted
)

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[AnyEntry])


def encode_chunk(entries: Sequence[AnyEntry]) -> bytes:
    """The entries as one chunk of bytes (msgpack; documents as they are)."""
    return _ENCODER.encode(entries)


def decode_chunk(chunk: bytes) -> list[AnyEntry]:
    """The entries of a chunk. Raises msgspec.DecodeError or msgspec.ValidationError for bytes that are none."""
    return _DECODER.decode(chunk)


def entry_size(entry: AnyEntry) -> int:
    """About how many bytes the entry takes; what the limit on a journal counts."""
    kind = type(entry)
    if kind is StepFinished:
        return 80 + len(entry.input) + len(entry.output) + len(entry.console)  # type: ignore[union-attr]  # just compared
    size = 80
    for name in ("trigger_output", "input", "output", "console", "items", "collected", "body", "message"):
        size += len(getattr(entry, name, b""))
    return size
