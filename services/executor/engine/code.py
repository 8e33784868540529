"""Asking for a call of a code step's function.

Decides: code is pure (the jail has no way out), so it waits for nothing and leaves no start in the journal.
Leaves: outcome and retry to work.py, source and language to the plan.
"""

from __future__ import annotations

from services.executor.engine.commands import RunCode
from services.executor.engine.frames import Frame, Work
from services.executor.engine.plan import CodePlan
from services.executor.engine.run import CALL, Handler, Run


def call(run: Run, frame: Frame, work: Work, plan: CodePlan, called: Handler) -> None:
    """Ask for the attempt that `work` stands at."""
    ref = run.expect(frame, plan.id, work.attempt, CALL, called)
    if ref is not None:
        timeout_ms = run.time_left(plan.timeout_ms)
        run.commands.append(RunCode(ref, plan.id, work.input, work.secrets, timeout_ms, run.floor))
