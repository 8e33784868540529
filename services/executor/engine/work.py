"""Action and code steps over all their attempts: input, outcome, retry, going on after an error.

Decides: when an attempt is tried again, with which number in its key (I4), what later steps see of a failed step.
Leaves: how the call itself is asked for to action.py and code.py.
Invariants: input is resolved once and is the same for all attempts. n grows only after an attempt whose failure is
known and journaled; after a time-out or an interruption the effect may have happened, so the next attempt has the same
key, and so has every later one: that a repetition is refused says nothing about the call that was cut off.
A step with `on_error: continue` that failed has the output `{"error": {"kind", "message", "attempt"}}`; any other path
into it is null.
"""

from __future__ import annotations

import msgspec

from flowlang.expressions import Resolved, SecretSlot
from services.executor.engine import action, code
from services.executor.engine.evaluate import evaluate
from services.executor.engine.events import ActionFinished, CodeFinished, Event, StepFailedEvent, TimedOut
from services.executor.engine.frames import Frame, Work
from services.executor.engine.journal import RunError, StepFailed, StepFinished
from services.executor.engine.keys import jitter
from services.executor.engine.plan import ActionPlan, CodePlan, WorkPlan
from services.executor.engine.run import Run
from services.executor.engine.scope import encode


class Failure(msgspec.Struct, frozen=True):
    """How an attempt failed. `unknown`: an effect may have happened all the same."""

    kind: str
    message: str
    retryable: bool = False
    retry_after_ms: int = 0
    console: bytes = b""
    unknown: bool = False


def begin(run: Run, frame: Frame, plan: WorkPlan) -> None:
    """Begin the step that the frame has come to."""
    work = frame.activity = Work(plan)
    work.started_ms = run.now_ms
    constant = plan.input.constant
    if constant is not None:
        _start(run, frame, work, constant, ())
    else:
        evaluate(run, frame, plan.id, plan.input, _resolved, _unresolved)


def _work(frame: Frame) -> Work:
    work = frame.activity
    assert isinstance(work, Work)  # noqa: S101  # handlers of this module are registered for such frames alone
    return work


def _resolved(run: Run, frame: Frame, resolved: Resolved) -> None:
    _start(run, frame, _work(frame), encode(resolved.value), resolved.secrets)


def _unresolved(run: Run, frame: Frame, kind: str, message: str) -> None:
    _failed(run, frame, _work(frame), Failure(kind, message))


def _start(run: Run, frame: Frame, work: Work, document: bytes, secrets: tuple[SecretSlot, ...]) -> None:
    limit = run.limits.document_bytes
    if len(document) > limit:
        message = f"The input is {len(document)} bytes long; {limit} are allowed."
        _failed(run, frame, work, Failure("INPUT_TOO_LARGE", message))
        return
    if frame.loop is not None and frame.loop.halted():
        frame.activity = None
        run.go(frame)
        return
    work.input = document
    work.secrets = secrets
    _call(run, frame, work)


def _call(run: Run, frame: Frame, work: Work) -> None:
    plan = work.plan
    if isinstance(plan, CodePlan):
        code.call(run, frame, work, plan, _called)
    elif isinstance(plan, ActionPlan):
        action.call(run, frame, work, plan, _called)


def _called(run: Run, frame: Frame, event: Event) -> None:
    """The attempt came to an end."""
    work = _work(frame)
    match event:
        case CodeFinished() | ActionFinished():
            _finished(run, frame, work, event.output, event.console)
        case StepFailedEvent():
            failure = Failure(
                event.kind, event.message, event.retryable, event.retry_after_ms, event.console, event.unknown
            )
            _failed(run, frame, work, failure)
        case TimedOut():
            _timed_out(run, frame, work, event.console)


def _finished(run: Run, frame: Frame, work: Work, output: bytes, console: bytes) -> None:
    limit = run.limits.document_bytes
    if len(output) > limit:
        message = f"The output is {len(output)} bytes long; {limit} are allowed. Hand on less, or a file."
        _failed(run, frame, work, Failure("OUTPUT_TOO_LARGE", message, console=console))
        return
    plan = work.plan
    written = b"" if work.written else work.input
    run.emit(
        StepFinished(
            plan.id, frame.indices, work.attempt, written, output, console, work.started_ms, run.now_ms
        )
    )  # fmt: skip
    if work.begun:
        run.urgent = True  # I3: an effect's outcome enters the very next flush
    run.steps_finished += 1
    run.settle(frame, output)


def _timed_out(run: Run, frame: Frame, work: Work, console: bytes) -> None:
    if run.over_time():
        message = "The run has used up its active time."
        _emit_failed(run, frame, work, Failure("RUN_TIMED_OUT", message, console=console, unknown=True))
        run.finish_over_time(work.plan.id, frame, work.attempt)
        return
    message = f"The step did not end within {work.plan.timeout_ms / 1000:g} s."
    _failed(run, frame, work, Failure("STEP_TIMED_OUT", message, True, 0, console, unknown=True))


def _failed(run: Run, frame: Frame, work: Work, failure: Failure) -> None:
    """Try again, go on without an output, or fail."""
    plan = work.plan
    unknown = _unknown(work, failure)
    if failure.retryable and work.attempt < plan.retry.max_attempts:
        if not unknown or plan.on_interruption == "retry":
            _retry(run, frame, work, failure, unknown)
            return
        message = f"{failure.message} Whether it took effect is not known, and this action must not be repeated then."
        failure = Failure("INTERRUPTED", message, console=failure.console, unknown=True)
    _emit_failed(run, frame, work, failure, continued=plan.continues)
    run.steps_finished += 1
    if plan.continues:
        run.settle(frame, error_document(failure.kind, failure.message, work.attempt))
        return
    frame.error = RunError(plan.id, frame.indices, work.attempt, failure.kind, failure.message)
    run.go(frame)


def _retry(run: Run, frame: Frame, work: Work, failure: Failure, unknown: bool) -> None:
    retry_at_ms = run.now_ms + max(_delay_ms(run, frame, work), failure.retry_after_ms)
    _emit_failed(run, frame, work, failure, retry_at_ms)
    work.next_attempt(retry_at_ms, unknown=unknown)
    if frame.loop is not None and frame.loop.halted():
        frame.activity = None
        run.go(frame)
        return
    run.sleep(frame, work.plan.id, work.attempt, retry_at_ms, _woken)


def _delay_ms(run: Run, frame: Frame, work: Work) -> int:
    retry = work.plan.retry
    # The power is bounded before the multiplication: a float overflows at about 1e308.
    factor = retry.backoff ** min(work.attempt - 1, 100)
    delay = min(retry.initial_ms * factor, retry.max_ms)
    if retry.jitter:
        delay *= 1 + retry.jitter * jitter(run.run_id, run.attempt, work.plan.id, frame.indices, work.attempt)
    return max(0, round(min(delay, retry.max_ms)))


def _emit_failed(
    run: Run, frame: Frame, work: Work, failure: Failure, retry_at_ms: int = 0, *, continued: bool = False
) -> None:
    plan = work.plan
    run.emit(
        StepFailed(
            plan.id,
            frame.indices,
            work.attempt,
            failure.kind,
            failure.message,
            b"" if work.written else work.input,
            work.secrets,
            failure.console,
            work.started_ms,
            run.now_ms,
            retry_at_ms,
            continued,
            _unknown(work, failure),
        )
    )
    if work.begun:
        run.urgent = True
    work.written = work.written or bool(work.input)


def _unknown(work: Work, failure: Failure) -> bool:
    return (failure.unknown or work.doubtful) and work.plan.effect == "effect"


def _woken(run: Run, frame: Frame, _event: Event) -> None:
    """The time of the next attempt has come."""
    work = _work(frame)
    work.started_ms = run.now_ms
    if run.over_time():
        run.finish_over_time(work.plan.id, frame, work.attempt)
    else:
        _call(run, frame, work)


def resume(run: Run, frame: Frame, work: Work) -> None:
    """Go on after a recovery that found an effect begun, or a retry pending."""
    work.started_ms = run.now_ms
    work.doubtful = work.doubtful or work.begun
    if frame.loop is not None and frame.loop.halted() and not work.begun:
        frame.activity = None
        run.go(frame)
    elif work.begun and work.plan.on_interruption == "fail":
        message = "The executor was lost during the call. Whether it took effect is not known, so it is not repeated."
        _failed(run, frame, work, Failure("INTERRUPTED", message, unknown=True))
    elif work.begun or work.retry_at_ms <= run.now_ms:
        # A retry that is due may have been in flight without a trace, so it counts as a take-over, too.
        frame.cut = frame.cut or work.begun
        _call(run, frame, work)
    else:
        frame.cut = False
        run.sleep(frame, work.plan.id, work.attempt, work.retry_at_ms, _woken)


def error_document(kind: str, message: str, attempt: int) -> bytes:
    """What later steps see of a step that failed and let the flow go on."""
    return encode({"error": {"kind": kind, "message": message, "attempt": attempt}})
