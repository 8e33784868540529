"""A run as people look at it: its journal told step by step.

Decides: what is shown of each step, and in which order: as they began.
Leaves: names of steps and what was skipped to the version's document, wire and screen to the callers.
A journal that ends in the middle of a run shows the open steps as running (or waiting for their next attempt).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from services.executor.engine.journal import (
    AnyEntry,
    BranchChosen,
    Indices,
    IterationFinished,
    LoopFinished,
    LoopStarted,
    Noted,
    Responded,
    RunError,
    RunFinished,
    RunStarted,
    StepFailed,
    StepFinished,
    StepInterrupted,
    StepStarted,
)
from services.executor.engine.scope import encode

StepStatus = Literal["running", "waiting", "succeeded", "failed", "continued", "interrupted", "stopped"]
"""`waiting`: for its next attempt. `continued`: failed, and the flow went on. `interrupted`: cut off, outcome unknown.

`stopped`: was open when something beside or inside it ended the run or the iteration.
"""


class StepView(msgspec.Struct):
    """One step at one position, over all its attempts. Documents are JSON bytes, empty where there is none."""

    step_id: str
    indices: Indices
    kind: Literal["call", "router", "loop", "respond"]
    status: StepStatus
    started_ms: int
    finished_ms: int = 0
    """0 while it is open."""
    attempt: int = 1
    input: bytes = b""
    output: bytes = b""
    console: bytes = b""
    error: RunError | None = None
    """Of the last attempt that failed, also where a later one succeeded."""
    retry_at_ms: int = 0
    key: str = ""
    """Idempotency key of the last attempt; empty for a step without outside effect."""
    interruptions: int = 0
    branches: tuple[int, ...] = ()
    """Of a router: positions of the branches that it chose."""
    iterations_finished: int = 0
    iterations_failed: int = 0
    notes: list[str] = []


_OPEN = ("running", "waiting")


def describe(entries: Iterable[AnyEntry]) -> list[StepView]:
    """The steps of a run, in the order in which they began."""
    teller = _Teller()
    for entry in entries:
        teller.tell(entry)
    return list(teller.views.values())


def trigger_document(entries: Iterable[AnyEntry]) -> bytes:
    """The payload that started the run, as intake packed it; empty if the journal does not begin with it."""
    for entry in entries:
        return entry.trigger_output if isinstance(entry, RunStarted) else b""
    return b""


class _Teller:
    def __init__(self) -> None:
        self.views: dict[tuple[str, Indices], StepView] = {}
        self._open: dict[tuple[str, Indices], StepView] = {}

    def tell(self, entry: AnyEntry) -> None:
        match entry:
            case RunStarted():
                pass
            case RunFinished():
                self._close((), entry.at_ms, entry.error)
            case StepStarted() | StepFinished() | StepFailed():
                self._attempt(entry)
            case IterationFinished():
                self._iteration(entry)
            case _:
                self._step(entry)
        if not isinstance(entry, RunStarted | RunFinished):
            place = (entry.step_id, entry.indices)
            if self.views[place].status in _OPEN:
                self._open[place] = self.views[place]
            else:
                self._open.pop(place, None)

    def _view(self, entry: AnyEntry, kind: Literal["call", "router", "loop", "respond"], started_ms: int) -> StepView:
        assert not isinstance(entry, RunStarted | RunFinished)  # noqa: S101  # those are told in tell()
        place = (entry.step_id, entry.indices)
        view = self.views.get(place)
        if view is None:
            view = self.views[place] = StepView(entry.step_id, entry.indices, kind, "running", started_ms, notes=[])
        elif view.kind == "call":
            view.kind = kind
        return view

    def _attempt(self, entry: StepStarted | StepFinished | StepFailed) -> None:
        view = self._view(entry, "call", entry.at_ms if isinstance(entry, StepStarted) else entry.started_ms)
        view.attempt = entry.attempt
        view.input = entry.input or view.input
        view.status, view.retry_at_ms = "running", 0
        if isinstance(entry, StepStarted):
            view.key = entry.key
            return
        view.console = entry.console or view.console
        if isinstance(entry, StepFinished):
            view.status, view.output, view.finished_ms = "succeeded", entry.output, entry.finished_ms
            return
        view.error = RunError(entry.step_id, entry.indices, entry.attempt, entry.kind, entry.message)
        if entry.retry_at_ms:
            view.status, view.retry_at_ms = "waiting", entry.retry_at_ms
            return
        view.status, view.finished_ms = "continued" if entry.continued else "failed", entry.failed_ms

    def _iteration(self, entry: IterationFinished) -> None:
        view = self._view(entry, "loop", entry.at_ms)
        view.iterations_finished += 1
        view.iterations_failed += entry.error is not None
        self._close((*entry.indices, entry.index), entry.at_ms, entry.error)

    def _step(self, entry: StepInterrupted | BranchChosen | LoopStarted | LoopFinished | Responded | Noted) -> None:
        match entry:
            case StepInterrupted():
                view = self._view(entry, "call", entry.at_ms)
                view.interruptions += 1
                view.attempt, view.key = entry.attempt, entry.key or view.key
                if entry.final:
                    view.status, view.finished_ms = "interrupted", entry.at_ms
            case BranchChosen():
                view = self._view(entry, "router", entry.at_ms)
                view.status, view.branches, view.finished_ms = "succeeded", entry.branches, entry.at_ms
            case LoopStarted():
                self._view(entry, "loop", entry.at_ms).input = entry.items
            case LoopFinished():
                view = self._view(entry, "loop", entry.at_ms)
                view.status, view.output, view.finished_ms = "succeeded", entry.output, entry.at_ms
            case Responded():
                view = self._view(entry, "respond", entry.at_ms)
                view.status, view.finished_ms = "succeeded", entry.at_ms
                view.output = b'{"status":%d,"headers":%b,"body":%b}' % (
                    entry.status,
                    encode(entry.headers),
                    entry.body,
                )
                if entry.ignored:
                    view.notes.append("An answer was given before; this one is ignored.")
            case Noted():
                self._view(entry, "call", entry.at_ms).notes.append(entry.text)

    def _close(self, indices: Indices, at_ms: int, error: RunError | None) -> None:
        """What is still open at or below these indices ended with them."""
        for place, view in list(self._open.items()):
            if view.indices[: len(indices)] == indices:
                del self._open[place]
                at_fault = error is not None and (view.kind == "loop" or view.step_id == error.step_id)
                view.status = "failed" if at_fault else "stopped"
                view.error = error if at_fault else view.error
                view.finished_ms = at_ms
