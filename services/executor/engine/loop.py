"""Loops: one iteration an item, one after the other or some side by side.

Decides: which item is begun next, what happens to the others when one fails, what the loop's id holds at its end.
Leaves: what an iteration's steps see to scope.py.
Invariants: at most `concurrency` iterations are open. An iteration's end is one entry that holds all that is left of it
(data.md 2). After a failure (without `on_error: continue`) no item is begun; `on_failure: stop` lets the others under
way stop at their next step boundary, `finish` carries them to their end; then the loop fails with the first error.
The id holds `{"count", "failed"}`, with `collect` also `items` (null for a failed one), with `on_error: continue` also
`errors` (`index`, `step`, `kind`, `message`).
"""

from __future__ import annotations

from functools import partial

import msgspec

from flowlang.expressions import Resolved
from services.executor.engine.evaluate import evaluate
from services.executor.engine.frames import Frame, LoopRun, Work
from services.executor.engine.journal import IterationFinished, LoopFinished, LoopStarted, RunError
from services.executor.engine.plan import LoopPlan
from services.executor.engine.run import Run
from services.executor.engine.scope import IterationScope, encode

_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])


def begin(run: Run, frame: Frame, plan: LoopPlan) -> None:
    """Work out the items."""
    evaluate(run, frame, plan.id, plan.items, _begin, _fail)


def _fail(run: Run, frame: Frame, kind: str, message: str) -> None:
    run.fail(frame, frame.step().id, kind, message)


def _begin(run: Run, frame: Frame, resolved: Resolved) -> None:
    plan = frame.step()
    assert isinstance(plan, LoopPlan)  # noqa: S101  # begin() asked for it
    value = resolved.value
    limit = run.limits.loop_iterations
    if not isinstance(value, list):
        kind = {type(None): "null", dict: "an object", str: "a text", bool: "a boolean"}.get(type(value), "a number")
        run.fail(frame, plan.id, "ITEMS_NOT_A_LIST", f"A loop goes over a list; its items are {kind}.")
    elif len(value) > limit:
        message = f"The loop has {len(value)} items; {limit} are allowed."
        run.fail(frame, plan.id, "TOO_MANY_ITERATIONS", message)
    else:
        items = encode(value)
        run.emit(LoopStarted(plan.id, frame.indices, items, len(value), run.now_ms))
        frame.activity = opened(plan, frame, items)
        go_on(run, frame.activity)


def opened(plan: LoopPlan, frame: Frame, items: bytes) -> LoopRun:
    """The state of a loop that begins."""
    return LoopRun(plan, frame, _ITEMS.decode(items))


def open_iteration(loop: LoopRun, index: int) -> Frame:
    """The frame of item `index`."""
    plan, frame = loop.plan, loop.frame
    scope = IterationScope(frame.scope, plan.id, loop.items[index], index, whole=plan.shows_steps)
    child = loop.active[index] = Frame(plan.body, (*frame.indices, index), scope, frame, loop)
    if index >= loop.next:
        loop.next = index + 1
    return child


def go_on(run: Run, loop: LoopRun) -> None:
    """Begin as many items as may run; end the loop when none is left."""
    if not loop.halted():
        while len(loop.active) < loop.plan.concurrency:
            if loop.gaps:
                index = loop.gaps.pop()
            elif loop.failure is None and loop.next < len(loop.items):
                index = loop.next
            else:
                break
            run.go(open_iteration(loop, index))
    if not loop.active:
        _end(run, loop)


def _end(run: Run, loop: LoopRun) -> None:
    frame, plan = loop.frame, loop.plan
    if loop.failure is not None:
        frame.error = loop.failure
        run.go(frame)
    elif loop.halted():
        frame.activity = None
        run.go(frame)
    else:
        output = _output(loop)
        run.emit(LoopFinished(plan.id, frame.indices, output, run.now_ms))
        run.settle(frame, output)


def _output(loop: LoopRun) -> bytes:
    parts = [b'{"count":%d,"failed":%d' % (len(loop.items), loop.failed)]
    if loop.plan.collect is not None:
        collected = loop.collected
        parts.append(b',"items":[%b]' % b",".join([collected.get(i, b"null") for i in range(len(loop.items))]))
    if loop.plan.continues:
        errors = [
            {"index": index, "step": error.step_id, "kind": error.kind, "message": error.message}
            for index, error in sorted(loop.errors.items())
        ]
        parts.append(b',"errors":%b' % encode(errors))
    return b"".join(parts) + b"}"


def iteration_done(run: Run, frame: Frame, loop: LoopRun) -> None:
    """An iteration has come to its end: collect its value."""
    collect = loop.plan.collect
    if collect is None:
        _close(run, frame, loop, b"", None)
    else:
        evaluate(run, frame, loop.plan.id, collect, partial(_collected, loop), partial(_uncollected, loop))


def _collected(loop: LoopRun, run: Run, frame: Frame, resolved: Resolved) -> None:
    _close(run, frame, loop, encode(resolved.value), None)


def _uncollected(loop: LoopRun, run: Run, frame: Frame, kind: str, message: str) -> None:
    run.fail(frame, loop.plan.id, kind, message)


def iteration_failed(run: Run, frame: Frame, loop: LoopRun, error: RunError) -> None:
    """An iteration has failed."""
    _close(run, frame, loop, b"", error)


def iteration_dropped(run: Run, frame: Frame, loop: LoopRun) -> None:
    """An iteration has stopped because of another's failure; it has no result."""
    loop.active.pop(frame.indices[-1], None)
    go_on(run, loop)


def _close(run: Run, frame: Frame, loop: LoopRun, collected: bytes, error: RunError | None) -> None:
    index = frame.indices[-1]
    had_failed = loop.failure is not None
    loop.close(index, collected, error)
    begun = loop.next if loop.failure is not None else 0
    run.emit(IterationFinished(loop.plan.id, frame.indices[:-1], index, collected, error, run.now_ms, begun))
    if loop.failure is not None and not had_failed and not loop.plan.finishes:
        _wake_sleepers(run, loop)
    go_on(run, loop)


def _wake_sleepers(run: Run, loop: LoopRun) -> None:
    """A retry that has not begun is not begun any more: its frame stands at a step boundary."""
    for serial in list(run.sleeping):
        frame = run.awaited[serial].frame
        if isinstance(frame.activity, Work) and _inside(frame, loop):
            del run.sleeping[serial]
            del run.awaited[serial]
            frame.activity = None
            run.go(frame)


def _inside(frame: Frame, loop: LoopRun) -> bool:
    around = frame.loop
    while around is not None and around is not loop:
        around = around.frame.loop
    return around is loop
