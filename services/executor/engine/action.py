"""Asking for a call of an action; where the barrier of an effect stands.

Decides: an effect's start is journaled and must be durable before the call (I4); pure and read actions wait for
nothing; a `store` action commits with the journal. What is repeated after an interruption has the same key and input.
Leaves: outcome and retry to work.py.
"""

from __future__ import annotations

from services.executor.engine.commands import RunAction
from services.executor.engine.frames import Frame, Work
from services.executor.engine.journal import StepStarted
from services.executor.engine.keys import idempotency_key
from services.executor.engine.plan import ActionPlan
from services.executor.engine.run import CALL, Handler, Run


def call(run: Run, frame: Frame, work: Work, plan: ActionPlan, called: Handler) -> None:
    """Ask for the attempt that `work` stands at; if its start is journaled already, again under the same key."""
    ref = run.expect(frame, plan.id, work.attempt, CALL, called)
    if ref is None:
        return
    after = run.floor
    if plan.effect == "effect":
        if not work.begun:
            _start(run, frame, work, plan)
        after = run.made
    elif plan.effect == "store":
        work.key = idempotency_key(run.run_id, run.attempt, plan.id, frame.indices, work.n)
    run.commands.append(
        RunAction(
            ref,
            plan.id,
            plan.piece,
            plan.action,
            plan.version,
            work.input,
            work.secrets,
            work.key,
            work.attempt,
            run.time_left(plan.timeout_ms),
            plan.effect,
            after,
        )
    )


def _start(run: Run, frame: Frame, work: Work, plan: ActionPlan) -> None:
    work.key = idempotency_key(run.run_id, run.attempt, plan.id, frame.indices, work.n)
    written = b"" if work.written else work.input
    run.emit(
        StepStarted(plan.id, frame.indices, work.attempt, work.n, work.key, written, work.secrets, work.started_ms)
    )
    work.written = work.begun = True
    run.urgent = True
