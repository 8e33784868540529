"""One run's state and what every step kind does with it: write entries, give commands, await events, end.

Decides: barriers (a command's `after`), the count of take-overs (I4), active time, the size of the journal, how a run
ends and what a synchronous caller is answered.
Leaves: what a step does to its own module, the order of things to machine.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

import msgspec

from services.executor.engine.commands import Answer, Command, Finish, Ref, Sleep
from services.executor.engine.events import ActionFinished, CodeFinished, Event, StepFailedEvent, TimedOut, Woken
from services.executor.engine.frames import Frame, Work
from services.executor.engine.journal import (
    AnyEntry,
    RunError,
    RunFinished,
    RunStatus,
    StepFailed,
    StepInterrupted,
    entry_size,
)
from services.executor.engine.limits import Limits
from services.executor.engine.plan import Plan
from services.executor.engine.scope import Scope, encode

Accepts = frozenset[type[Event]]
Handler = Callable[["Run", Frame, Event], None]

CALL: Accepts = frozenset({CodeFinished, ActionFinished, StepFailedEvent, TimedOut})
SLEEP: Accepts = frozenset({Woken})


class Awaited(NamedTuple):
    """What a command was given for, which events answer it, and who goes on with them."""

    ref: Ref
    frame: Frame
    accepts: Accepts
    handler: Handler


def _breathed(_run: Run, _frame: Frame, _event: Event) -> None:
    """The agenda goes on by itself."""


def _as_is(document: bytes) -> bytes:
    return document


class Surroundings(msgspec.Struct, frozen=True):
    """What a run is told about where it runs.

    `unpack` opens the trigger's document as intake packed it; `variables` is a JSON object.
    """

    unpack: Callable[[bytes], bytes] = _as_is
    environment: str = "production"
    url: str = ""
    variables: bytes = b"{}"


DEFAULT_SURROUNDINGS = Surroundings()


class Run:
    """The state that the modules of the step kinds work on."""

    __slots__ = (
        "active_ms",
        "agenda",
        "answer",
        "attempt",
        "awaited",
        "commands",
        "entries",
        "error",
        "floor",
        "journal_bytes",
        "last_output",
        "limits",
        "made",
        "now_ms",
        "plan",
        "root",
        "run_id",
        "serial",
        "sleeping",
        "started_ms",
        "status",
        "steps_finished",
        "surroundings",
        "trigger_id",
        "urgent",
    )

    def __init__(self, plan: Plan, run_id: bytes, limits: Limits, surroundings: Surroundings) -> None:
        self.plan = plan
        self.run_id = run_id
        self.limits = limits
        self.surroundings = surroundings
        self.status: RunStatus = "running"
        self.error: RunError | None = None
        self.answer: Answer | None = None
        """What a respond step, or the end of the run, answered."""
        self.last_output = b"null"
        """Of the last step outside of loops; the answer of a flow that has no respond step."""
        self.steps_finished = 0
        self.trigger_id = ""
        self.attempt = 1
        self.started_ms = self.now_ms = 0
        self.active_ms = 0
        self.entries: list[AnyEntry] = []
        self.made = 0
        """Entries made since start or recovery, taken or not."""
        self.floor = 0
        """Least `after` of commands given now: during a recovery, the take-overs must be durable first."""
        self.urgent = False
        self.journal_bytes = 0
        self.commands: list[Command] = []
        self.awaited: dict[int, Awaited] = {}
        self.sleeping: dict[int, int] = {}
        """Serial to time, of awaited sleeps."""
        self.serial = 0
        self.agenda: deque[Frame] = deque()
        """Frames that can go on at once."""
        self.root: Frame = Frame(plan.root, (), Scope(None), None, None)

    def begin(self, trigger_id: str, trigger_output: bytes, at_ms: int, attempt: int) -> None:
        """Set what every run has in scope."""
        self.trigger_id = trigger_id
        self.attempt = attempt
        self.started_ms = self.now_ms = at_ms
        around = self.surroundings
        self.root.scope = Scope(
            None,
            {
                "trigger": lambda: around.unpack(trigger_output),
                "run": self._document,
                "variables": lambda: around.variables,
            },
        )

    def _document(self) -> bytes:
        started = datetime.fromtimestamp(self.started_ms / 1000, UTC).isoformat(timespec="milliseconds")
        around = self.surroundings
        return encode(
            {
                "id": str(UUID(bytes=self.run_id)),
                "trigger": self.trigger_id,
                "started": started.replace("+00:00", "Z"),
                "environment": around.environment,
                "url": around.url,
            }
        )

    def emit(self, entry: AnyEntry) -> None:
        """Write an entry."""
        self.entries.append(entry)
        self.made += 1
        self.journal_bytes += entry_size(entry)

    def expect(self, frame: Frame, step_id: str, attempt: int, accepts: Accepts, handler: Handler) -> Ref | None:
        """Await the event of a command that is about to be given. None when the run has ended over it."""
        if frame.cut and not self._taken_over(frame, step_id, attempt):
            return None
        self.serial += 1
        ref = Ref(step_id, frame.indices, attempt, self.serial)
        self.awaited[self.serial] = Awaited(ref, frame, accepts, handler)
        return ref

    def sleep(self, frame: Frame, step_id: str, attempt: int, until_ms: int, handler: Handler) -> None:
        """Go on with `handler` at a time."""
        ref = self.expect(frame, step_id, attempt, SLEEP, handler)
        if ref is not None:
            self.sleeping[ref.serial] = until_ms
            self.commands.append(Sleep(ref, until_ms, self.floor))

    def pause(self) -> None:
        """Give the driver a breath between two parts of much work without any command."""
        self.serial += 1
        ref = Ref("", (), 0, self.serial)
        self.awaited[self.serial] = Awaited(ref, self.root, SLEEP, _breathed)
        self.commands.append(Sleep(ref, self.now_ms, self.floor))

    def _taken_over(self, frame: Frame, step_id: str, attempt: int) -> bool:
        """Count a take-over (I4). A step that takes its executor with it must not do so for ever."""
        frame.cut = False
        frame.takeovers += 1
        work = frame.activity
        key = work.key if isinstance(work, Work) and work.begun else ""
        self.emit(StepInterrupted(step_id, frame.indices, attempt, key, frame.takeovers, self.now_ms))
        self.floor = self.made
        self.urgent = True
        if frame.takeovers < self.limits.takeovers:
            return True
        message = (
            f"The executor was lost {frame.takeovers} times while this step was under way; it is not tried again. "
            "See whether it uses up memory, then retry the run from here."
        )
        self.finish("internal_error", RunError(step_id, frame.indices, attempt, "EXECUTOR_LOST", message))
        return False

    def go(self, frame: Frame) -> None:
        """The frame can go on."""
        self.agenda.append(frame)

    def settle(self, frame: Frame, output: bytes) -> None:
        """The step that the frame works on is done, and the frame goes on."""
        frame.settle(frame.block.steps[frame.position], output)
        if frame.loop is None:
            self.last_output = output
        self.agenda.append(frame)

    def fail(self, frame: Frame, step_id: str, kind: str, message: str) -> None:
        """A router, loop or respond step failed; such steps have one attempt."""
        now_ms = self.now_ms
        self.emit(StepFailed(step_id, frame.indices, 1, kind, message, b"", (), b"", now_ms, now_ms))
        frame.error = RunError(step_id, frame.indices, 1, kind, message)
        self.agenda.append(frame)

    def time_left(self, timeout_ms: int) -> int:
        """A step's time-out, cut to the active time that the run has left."""
        return max(1, min(timeout_ms, self.limits.run_time_ms - self.active_ms))

    def over_time(self) -> bool:
        """Whether the run has used up its active time."""
        return self.active_ms >= self.limits.run_time_ms

    def finish_over_time(self, step_id: str, frame: Frame, attempt: int) -> None:
        """End a run that has used up its active time."""
        message = f"The run was active for longer than its limit of {self.limits.run_time_ms / 1000:g} s."
        self.finish("timed_out", RunError(step_id, frame.indices, attempt, "RUN_TIMED_OUT", message))

    def finish(self, status: RunStatus, error: RunError | None) -> None:
        """End the run. Effects in flight are recorded as interrupted: whether they happened is not known."""
        for _, frame, _, _ in self.awaited.values():
            work = frame.activity
            if isinstance(work, Work) and work.begun:
                entry = StepInterrupted(
                    work.plan.id, frame.indices, work.attempt, work.key, frame.takeovers, self.now_ms, final=True
                )
                self.emit(entry)
        self.status = status
        self.error = error
        self.emit(RunFinished(status, error, self.now_ms, self.steps_finished))
        self.awaited.clear()
        self.sleeping.clear()
        self.agenda.clear()
        self.urgent = True
        # What was asked for a moment ago is not to be begun any more; an answer given stays given.
        self.commands = [command for command in self.commands if type(command) is Answer]
        if self.answer is None:
            self.answer = end_answer(status, error, self.last_output, self.made)
            self.commands.append(self.answer)
        self.commands.append(Finish(status, error, self.made))


def end_answer(status: RunStatus, error: RunError | None, last_output: bytes, after: int) -> Answer:
    """What a synchronous caller gets from a run without a respond step."""
    if status == "succeeded":
        return Answer(200, {}, last_output, after)
    if error is None:
        told = {"kind": status.upper(), "message": f"The run ended as {status}."}
    else:
        told = {"kind": error.kind, "message": error.message, "step": error.step_id}
    return Answer(500, {}, encode({"error": told}), after)
