"""Rebuilding a run from its journal, and going on from there.

Decides: what each entry does to the state (the same that happened when it was written), and which positions count a
take-over: those where something may have been in flight without a trace.
Leaves: writing entries to the step kinds. Any prefix of a journal that ends where a flush ended is enough.
A frame is made when an entry first speaks of it; iterations that have ended leave no frame behind.
"""

from __future__ import annotations

from collections.abc import Iterable

from services.executor.engine import loop as loops
from services.executor.engine import router as routers
from services.executor.engine import work as works
from services.executor.engine.commands import Answer
from services.executor.engine.frames import Frame, LoopRun, RouterRun, Work
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
    entry_size,
)
from services.executor.engine.plan import Block, LoopPlan, RouterPlan, StepPlan, WorkPlan
from services.executor.engine.run import Run, end_answer


class JournalError(ValueError):
    """The journal does not fit the version that it is said to be of."""


def replay(run: Run, entries: Iterable[AnyEntry]) -> None:
    """Bring a new run to where its journal ends."""
    clock = _ActiveTime()
    for entry in entries:
        run.journal_bytes += entry_size(entry)
        clock.pass_to(entry)
        _apply(run, entry)
    run.active_ms = clock.active_ms


def resume(run: Run, *, taken_over: bool) -> None:
    """Put every frame that can go on back to work. `taken_over`: the last owner did not hand the run over itself."""
    _resume(run, run.root, taken_over)


class _ActiveTime:
    """Active time as the journal tells it: without waiting for a retry, and without the time nobody had the run."""

    def __init__(self) -> None:
        self.active_ms = 0
        self._last_ms = 0
        self._asleep_until_ms = 0

    def pass_to(self, entry: AnyEntry) -> None:
        at_ms = _time_of(entry)
        began_ms = max(self._last_ms, min(self._asleep_until_ms, at_ms))
        if self._last_ms and at_ms > began_ms and type(entry) is not StepInterrupted:
            self.active_ms += at_ms - began_ms
        self._last_ms = max(self._last_ms, at_ms)
        self._asleep_until_ms = entry.retry_at_ms if isinstance(entry, StepFailed) else 0


def _time_of(entry: AnyEntry) -> int:
    if isinstance(entry, StepFinished):
        return entry.finished_ms
    return entry.failed_ms if isinstance(entry, StepFailed) else entry.at_ms


def _apply(run: Run, entry: AnyEntry) -> None:
    if isinstance(entry, RunStarted):
        run.begin(entry.trigger_id, entry.trigger_output, entry.at_ms, entry.run_attempt)
        return
    if isinstance(entry, RunFinished):
        run.status, run.error = entry.status, entry.error
        if run.answer is None:
            run.answer = end_answer(entry.status, entry.error, run.last_output, 0)
        return
    if isinstance(entry, Noted):
        return
    step = run.plan.steps.get(entry.step_id)
    if step is None:
        raise JournalError(f"The journal speaks of a step `{entry.step_id}` that this version does not have.")
    collecting = isinstance(step, LoopPlan) and len(entry.indices) > step.block.depth
    frame = _frame(run, step.body if collecting and isinstance(step, LoopPlan) else step.block, entry.indices)
    _stand(frame, len(frame.block.steps) if collecting else step.position)
    _apply_at(run, frame, step, entry)


def _stand(frame: Frame, position: int) -> None:
    if frame.position != position:
        frame.position = position
        frame.activity = None
        frame.takeovers = 0


def _frame(run: Run, block: Block, indices: Indices) -> Frame:
    """The frame of a block, made if no entry spoke of it before."""
    frame = run.root
    for inner in block.path[1:]:
        activity = frame.activity
        if isinstance(activity, RouterRun) and activity.plan is inner.owner:
            child = activity.child
            if child is None or child.block is not inner:
                activity.at = activity.chosen.index(inner.branch)
                child = activity.child = Frame(inner, frame.indices, frame.scope, frame, frame.loop)
            frame = child
        elif isinstance(activity, LoopRun) and activity.plan is inner.owner:
            index = indices[len(frame.indices)]
            frame = activity.active.get(index) or loops.open_iteration(activity, index)
        else:
            raise JournalError("The journal speaks of steps in a block that was not entered.")
    return frame


def _apply_at(run: Run, frame: Frame, step: StepPlan, entry: AnyEntry) -> None:
    match entry:
        case StepStarted() | StepFinished() | StepFailed():
            _apply_attempt(run, frame, step, entry)
        case StepInterrupted():
            frame.takeovers = entry.takeovers
        case BranchChosen() if isinstance(step, RouterPlan):
            frame.activity = routers.opened(step, frame, entry.branches)
        case LoopStarted() if isinstance(step, LoopPlan):
            frame.activity = loops.opened(step, frame, entry.items)
        case IterationFinished() if isinstance(frame.activity, LoopRun):
            loop = frame.activity
            loop.close(entry.index, entry.collected, entry.error)
            loop.next = max(loop.next, entry.index + 1, entry.begun)
        case LoopFinished():
            _settle(run, frame, step, entry.output)
        case Responded():
            if not entry.ignored:
                run.answer = Answer(entry.status, entry.headers, entry.body)
            frame.settle(step, None)
        case _:
            raise JournalError(f"An entry {type(entry).__name__} does not fit the step `{step.id}`.")


def _apply_attempt(run: Run, frame: Frame, step: StepPlan, entry: StepStarted | StepFinished | StepFailed) -> None:
    if isinstance(entry, StepFinished):
        _settle(run, frame, step, entry.output)
        run.steps_finished += 1
    elif isinstance(entry, StepFailed):
        _apply_failed(run, frame, step, entry)
    else:
        work = _work(frame, step, entry.attempt, entry.input)
        work.n, work.key, work.secrets = entry.n, entry.key, entry.secrets
        work.begun = True


def _apply_failed(run: Run, frame: Frame, step: StepPlan, entry: StepFailed) -> None:
    if not isinstance(step, WorkPlan) or not (entry.retry_at_ms or entry.continued):
        frame.error = RunError(step.id, entry.indices, entry.attempt, entry.kind, entry.message)
    elif entry.retry_at_ms:
        work = _work(frame, step, entry.attempt, entry.input)
        work.secrets = entry.secrets
        work.next_attempt(entry.retry_at_ms, unknown=entry.unknown)
        return
    else:
        _settle(run, frame, step, works.error_document(entry.kind, entry.message, entry.attempt))
    if isinstance(step, WorkPlan):
        run.steps_finished += 1


def _work(frame: Frame, step: StepPlan, attempt: int, document: bytes) -> Work:
    if not isinstance(step, WorkPlan):
        raise JournalError(f"The journal speaks of an attempt of the step `{step.id}`, which has none.")
    work = frame.activity if isinstance(frame.activity, Work) else Work(step)
    frame.activity = work
    work.attempt = attempt
    work.input = document or work.input
    work.written = True
    return work


def _settle(run: Run, frame: Frame, step: StepPlan, output: bytes) -> None:
    frame.settle(step, output)
    if frame.loop is None:
        run.last_output = output


def _resume(run: Run, frame: Frame, taken_over: bool) -> None:
    if run.status != "running":
        return
    activity = frame.activity
    frame.cut = taken_over
    if frame.error is not None or activity is None:
        run.go(frame)
    elif isinstance(activity, Work):
        works.resume(run, frame, activity)
    elif isinstance(activity, RouterRun):
        if activity.child is not None:
            _resume(run, activity.child, taken_over)
        else:
            routers.go_on(run, frame, activity)
            if activity.child is not None:
                activity.child.cut = taken_over
    else:
        _resume_loop(run, activity, taken_over)


def _resume_loop(run: Run, loop: LoopRun, taken_over: bool) -> None:
    known = list(loop.active.values())
    lost = [index for index in range(loop.next) if index not in loop.done and index not in loop.active]
    loop.gaps = lost[::-1]
    for child in sorted(known, key=_index):
        _resume(run, child, taken_over)
    if run.status == "running":
        loops.go_on(run, loop)
        for child in loop.active.values():
            child.cut = child.cut or (taken_over and child not in known)


def _index(frame: Frame) -> int:
    return frame.indices[-1]
