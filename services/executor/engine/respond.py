"""Respond steps: answer a waiting synchronous request and go on.

Decides: what a proper answer is; that only the first counts, a later one is noted and ignored.
Leaves: sending it to the driver, after the flush that makes it durable (I5).
"""

from __future__ import annotations

from flowlang.expressions import Resolved
from flowlang.model import Json
from flowlang.values import as_text
from services.executor.engine.commands import Answer
from services.executor.engine.evaluate import evaluate
from services.executor.engine.frames import Frame
from services.executor.engine.journal import Responded
from services.executor.engine.plan import RespondPlan
from services.executor.engine.run import Run
from services.executor.engine.scope import encode


def begin(run: Run, frame: Frame, plan: RespondPlan) -> None:
    """Work out the answer."""
    evaluate(run, frame, plan.id, plan.content, _respond, _fail)


def _fail(run: Run, frame: Frame, kind: str, message: str) -> None:
    run.fail(frame, frame.step().id, kind, message)


def _respond(run: Run, frame: Frame, resolved: Resolved) -> None:
    plan = frame.step()
    content = resolved.value
    assert isinstance(content, dict)  # noqa: S101  # plan.py made the template an object
    status = _status(content["status"])
    if status is None:
        message = f"The status of an answer is a number from 200 to 599, not {as_text(content['status']) or 'null'}."
        run.fail(frame, plan.id, "RESPONSE_INVALID", message)
        return
    given = content["headers"]
    headers = {name: as_text(value) for name, value in given.items()} if isinstance(given, dict) else {}
    body = encode(content["body"])
    ignored = run.answer is not None
    run.emit(Responded(plan.id, frame.indices, status, headers, body, run.now_ms, ignored))
    if not ignored:
        run.answer = Answer(status, headers, body, run.made)
        run.commands.append(run.answer)
        run.urgent = True
    frame.settle(plan, None)
    run.go(frame)


def _status(value: Json) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:4])
    if isinstance(value, int | float) and not isinstance(value, bool) and value == int(value) and 200 <= value <= 599:
        return int(value)
    return None
