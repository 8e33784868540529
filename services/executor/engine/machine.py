"""The state machine of one run: events in, commands and journal entries out.

Decides: the order of things. What can go on at once goes on; a list of steps that ends or fails hands over to the step
that it belongs to.
Leaves: each step kind to its file, state and barriers to run.py, rebuilding to replay.py, all I/O to the driver.
Invariants: no clock, no randomness, no I/O: the same events in the same order give the same entries and commands.
After a recovery from any durable prefix the run goes on as if nothing had happened, but for what `on_interruption`
says.

    machine, commands = Machine.start(plan, run_id, "order_paid", payload, now_ms)
    commands = machine.handle(CodeFinished(ref, output, console, now_ms))
    chunk = encode_chunk(machine.take_entries())
"""

from __future__ import annotations

from collections.abc import Iterable

from services.executor.engine import loop as loops
from services.executor.engine import respond as responds
from services.executor.engine import router as routers
from services.executor.engine import work as works
from services.executor.engine.commands import Answer, Command
from services.executor.engine.events import CancelRequested, Event
from services.executor.engine.frames import Frame, LoopRun, RouterRun
from services.executor.engine.journal import AnyEntry, RunError, RunStarted, RunStatus
from services.executor.engine.limits import DEFAULT_LIMITS, Limits
from services.executor.engine.plan import LoopPlan, Plan, RespondPlan, RouterPlan, StepPlan, WorkPlan
from services.executor.engine.replay import replay, resume
from services.executor.engine.run import DEFAULT_SURROUNDINGS, Run, Surroundings

BREATH = 2_000
"""Steps and iterations begun in one go before the driver gets a breath: about 20 ms."""

_STATUS_OF_KIND: dict[str, RunStatus] = {
    "MEMORY_EXCEEDED": "memory_exceeded",
    "RUN_TIMED_OUT": "timed_out",
    "INTERNAL_ERROR": "internal_error",
}
"""Kinds of a step's error that give the run a state of its own; all others: failed."""


class Machine:
    """One run. Made by `start` or `recover`."""

    __slots__ = ("_run",)

    def __init__(self, run: Run) -> None:
        self._run = run

    @classmethod
    def start(
        cls,
        plan: Plan,
        run_id: bytes,
        trigger_id: str,
        trigger_output: bytes,
        now_ms: int,
        limits: Limits = DEFAULT_LIMITS,
        surroundings: Surroundings = DEFAULT_SURROUNDINGS,
        run_attempt: int = 1,
    ) -> tuple[Machine, list[Command]]:
        """Begin a run. `trigger_output` is kept as given, and opened by `surroundings.unpack` only when asked for."""
        run = Run(plan, run_id, limits, surroundings)
        run.begin(trigger_id, trigger_output, now_ms, run_attempt)
        run.emit(RunStarted(trigger_id, trigger_output, now_ms, run_attempt))
        run.go(run.root)
        machine = cls(run)
        return machine, machine._go_on()

    @classmethod
    def recover(
        cls,
        plan: Plan,
        run_id: bytes,
        entries: Iterable[AnyEntry],
        now_ms: int,
        limits: Limits = DEFAULT_LIMITS,
        surroundings: Surroundings = DEFAULT_SURROUNDINGS,
        *,
        taken_over: bool = True,
    ) -> tuple[Machine, list[Command]]:
        """Go on with a run from its journal (all of it, in order; it begins with RunStarted).

        `taken_over` is False for a run that its last owner handed over itself, or that was queued and never begun:
        then nothing was in flight, and no take-over counts. Commands come with the barriers that make take-overs
        count. Raises JournalError for a journal of another version.
        """
        run = Run(plan, run_id, limits, surroundings)
        replay(run, entries)
        machine = cls(run)
        if run.status != "running":
            return machine, []
        run.now_ms = max(run.now_ms, now_ms)
        resume(run, taken_over=taken_over)
        commands = machine._go_on()
        run.floor = 0
        return machine, commands

    def handle(self, event: Event) -> list[Command]:
        """Take in what happened; what is to be done now. An event that nobody awaits gives nothing."""
        run = self._run
        if run.status != "running":
            return []
        if event.now_ms > run.now_ms:
            if len(run.awaited) > len(run.sleeping):
                run.active_ms += event.now_ms - run.now_ms
            run.now_ms = event.now_ms
        if isinstance(event, CancelRequested):
            run.finish("canceled", None)
            return self._go_on()
        ref = event.ref
        awaited = run.awaited.get(ref.serial)
        if awaited is None or type(event) not in awaited.accepts:
            return []
        if awaited.ref is not ref and awaited.ref != ref:
            return []
        del run.awaited[ref.serial]
        run.sleeping.pop(ref.serial, None)
        awaited.handler(run, awaited.frame, event)
        return self._go_on()

    def take_entries(self) -> list[AnyEntry]:
        """The entries made since this was last called, in order."""
        run = self._run
        entries, run.entries = run.entries, []
        run.urgent = False
        return entries

    @property
    def has_entries(self) -> bool:
        """Whether there are entries that were not taken."""
        return bool(self._run.entries)

    @property
    def wants_flush(self) -> bool:
        """Some entry not taken must not wait for later ones: an effect's start or outcome, an answer, the end (I3)."""
        return self._run.urgent

    @property
    def entries_made(self) -> int:
        """How many entries this machine has made; what `after` counts."""
        return self._run.made

    @property
    def status(self) -> RunStatus:
        """How the run stands."""
        return self._run.status

    @property
    def error(self) -> RunError | None:
        """Why it ended badly."""
        return self._run.error

    @property
    def answer(self) -> Answer | None:
        """What a synchronous caller is answered, once that is known."""
        return self._run.answer

    @property
    def steps_finished(self) -> int:
        """How many outcomes of action and code steps there are."""
        return self._run.steps_finished

    @property
    def active_ms(self) -> int:
        """Active time so far: time in which all of the run sleeps does not count."""
        return self._run.active_ms

    @property
    def wake_at_ms(self) -> int | None:
        """When all of the run sleeps: until when. The machine may then be dropped and recovered (not taken over)."""
        run = self._run
        if run.sleeping and len(run.sleeping) == len(run.awaited):
            return min(run.sleeping.values())
        return None

    def _go_on(self) -> list[Command]:
        run = self._run
        agenda = run.agenda
        left = BREATH
        while agenda:
            if not left:
                run.pause()
                break
            left -= 1
            _advance(run, agenda.popleft())
        commands, run.commands = run.commands, []
        return commands


def _advance(run: Run, frame: Frame) -> None:
    """The frame has come to a step boundary."""
    if frame.error is not None or (frame.loop is not None and frame.loop.halted()):
        _leave(run, frame)
        return
    steps = frame.block.steps
    position = frame.position
    while position < len(steps) and steps[position].skip:
        position += 1
    frame.position = position
    if position < len(steps):
        _begin(run, frame, steps[position])
    else:
        _end(run, frame)


def _begin(run: Run, frame: Frame, step: StepPlan) -> None:
    if run.active_ms >= run.limits.run_time_ms:
        run.finish_over_time(step.id, frame, 1)
    elif run.journal_bytes > run.limits.journal_bytes:
        message = (
            f"The run's journal has grown beyond {run.limits.journal_bytes} bytes; hand on less from step to step."
        )
        run.finish("log_too_large", RunError(step.id, frame.indices, 1, "LOG_TOO_LARGE", message))
    elif isinstance(step, WorkPlan):
        works.begin(run, frame, step)
    elif isinstance(step, RouterPlan):
        routers.begin(run, frame, step)
    elif isinstance(step, LoopPlan):
        loops.begin(run, frame, step)
    elif isinstance(step, RespondPlan):
        responds.begin(run, frame, step)


def _end(run: Run, frame: Frame) -> None:
    """All steps of the list are done."""
    parent = frame.parent
    if parent is None:
        run.finish("succeeded", None)
    elif isinstance(parent.activity, RouterRun):
        routers.branch_done(run, parent, parent.activity)
    elif isinstance(parent.activity, LoopRun):
        loops.iteration_done(run, frame, parent.activity)


def _leave(run: Run, frame: Frame) -> None:
    """The list of steps has failed, or stops because of a failure beside it."""
    parent = frame.parent
    if parent is None:
        error = frame.error
        run.finish(_STATUS_OF_KIND.get(error.kind, "failed") if error else "failed", error)
    elif isinstance(parent.activity, LoopRun):
        if frame.error is not None:
            loops.iteration_failed(run, frame, parent.activity, frame.error)
        else:
            loops.iteration_dropped(run, frame, parent.activity)
    else:
        parent.error = frame.error
        parent.activity = None
        run.go(parent)


__all__ = ["Limits", "Machine", "Surroundings"]
