"""Routers: which branches run, and one after the other they do.

Decides: the branches, once and for all by an entry (a clock or chance in a condition cannot change it later); what the
router's id holds: `{"branch": first name or null, "branches": [names]}`, inside its branches, too.
Leaves: what an operator means to flowlang/conditions.py.
All conditions of a router are evaluated together, with one isolate call at most.
"""

from __future__ import annotations

from flowlang.conditions import holds, truthy
from flowlang.expressions import Resolved
from flowlang.model import Condition, Json
from services.executor.engine.evaluate import evaluate
from services.executor.engine.frames import Frame, RouterRun
from services.executor.engine.journal import BranchChosen
from services.executor.engine.plan import RouterPlan
from services.executor.engine.run import Run
from services.executor.engine.scope import encode


def begin(run: Run, frame: Frame, plan: RouterPlan) -> None:
    """Decide."""
    evaluate(run, frame, plan.id, plan.operands, _decide, _fail)


def _fail(run: Run, frame: Frame, kind: str, message: str) -> None:
    run.fail(frame, frame.step().id, kind, message)


def _decide(run: Run, frame: Frame, resolved: Resolved) -> None:
    plan = frame.step()
    assert isinstance(plan, RouterPlan)  # noqa: S101  # begin() asked for it
    chosen = _chosen(plan, resolved.value)
    run.emit(BranchChosen(plan.id, frame.indices, chosen, run.now_ms))
    frame.activity = opened(plan, frame, chosen)
    go_on(run, frame, frame.activity)


def _chosen(plan: RouterPlan, operands: Json) -> tuple[int, ...]:
    assert isinstance(operands, list)  # noqa: S101  # plan.py made the template a list
    chosen: list[int] = []
    for number, (branch, groups) in enumerate(zip(plan.branches, operands, strict=True)):
        if not branch.fallback and _any_group(branch.when, groups):
            chosen.append(number)
            if plan.first_match:
                break
    if not chosen:
        chosen = [number for number, branch in enumerate(plan.branches) if branch.fallback][:1]
    return tuple(chosen)


def _any_group(when: list[list[Condition]], groups: Json) -> bool:
    assert isinstance(groups, list)  # noqa: S101  # as above
    return any(
        all(_holds(condition, values) for condition, values in zip(group, given, strict=True))  # type: ignore[arg-type]  # lists, as above
        for group, given in zip(when, groups, strict=True)
    )


def _holds(condition: Condition, values: Json) -> bool:
    assert isinstance(values, list)  # noqa: S101  # as above
    if condition.expression:
        return truthy(values[0])
    return holds(values, condition.op, condition.case_sensitive)


def opened(plan: RouterPlan, frame: Frame, chosen: tuple[int, ...]) -> RouterRun:
    """The state of a router that has decided; its id is in scope."""
    names = [plan.branches[number].name for number in chosen]
    frame.scope.put(plan.id, encode({"branch": names[0] if names else None, "branches": names}))
    return RouterRun(plan, chosen)


def go_on(run: Run, frame: Frame, router: RouterRun) -> None:
    """Begin the branch that is next, or end the router."""
    plan = router.plan
    if router.at < len(router.chosen):
        block = plan.branches[router.chosen[router.at]].block
        router.child = Frame(block, frame.indices, frame.scope, frame, frame.loop)
        run.go(router.child)
        return
    frame.settle(plan, None)
    run.go(frame)


def branch_done(run: Run, frame: Frame, router: RouterRun) -> None:
    """The branch under way has come to its end."""
    router.at += 1
    router.child = None
    go_on(run, frame, router)
