"""Getting the value of a template: at once where plain paths are enough, else after one isolate call.

Decides: that all expressions of a step which are not plain go to the isolate together.
Leaves: what the value is for to the step's own module, which is called back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from flowlang.expressions import Resolved, resolve
from flowlang.model import Json
from services.executor.engine.commands import Evaluate
from services.executor.engine.events import Evaluated, EvaluationFailed, Event
from services.executor.engine.frames import Frame
from services.executor.engine.plan import Input
from services.executor.engine.run import Accepts, Run

Then = Callable[[Run, Frame, Resolved], None]
Fail = Callable[[Run, Frame, str, str], None]
"""Told the kind and the message of what went wrong."""

EVALUATION: Accepts = frozenset({Evaluated, EvaluationFailed})
_VALUES: msgspec.json.Decoder[list[Json]] = msgspec.json.Decoder(list[Json])


def evaluate(run: Run, frame: Frame, step_id: str, made: Input, then: Then, fail: Fail, attempt: int = 1) -> None:
    """Call `then` with the value, now or when it is there; or `fail`."""
    template = made.template
    if template.plain:
        _finish(run, frame, made, (), then, fail)
        return
    ref = run.expect(frame, step_id, attempt, EVALUATION, partial(_evaluated, made, then, fail))
    if ref is not None:
        run.commands.append(Evaluate(ref, template.expressions, frame.scope.documents(made.names), run.floor))


def _evaluated(made: Input, then: Then, fail: Fail, run: Run, frame: Frame, event: Event) -> None:
    if isinstance(event, EvaluationFailed):
        fail(run, frame, event.kind, event.message)
        return
    assert isinstance(event, Evaluated)  # noqa: S101  # machine.py lets no other event through to an Evaluate
    try:
        values = _VALUES.decode(event.values)
    except msgspec.DecodeError as error:
        fail(run, frame, "EXPRESSION_FAILED", f"The values of the expressions cannot be read: {error}")
        return
    _finish(run, frame, made, values, then, fail)


def _finish(run: Run, frame: Frame, made: Input, values: Sequence[Json], then: Then, fail: Fail) -> None:
    try:
        resolved = resolve(made.template, frame.scope, values)
    except (msgspec.DecodeError, RecursionError) as error:
        fail(run, frame, "DOCUMENT_UNREADABLE", f"A document that an expression refers to cannot be read: {error}")
        return
    then(run, frame, resolved)
