"""What expressions refer to: names in scope, connections, and the sources that only the jail can read.

Decides: which names an expression may use where it stands (flow-language.md, Expressions): `trigger`, `connections`,
`variables`, `run`, earlier steps, the loops around; steps of a branch also after its router, where they are null when
the branch was not taken; steps of a loop only inside it. A trigger's input knows `connections` and `variables` alone.
Leaves: whether a larger expression parses to the jail; values to the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Literal

import msgspec

from flowlang.expressions import Expression, ExpressionError, expressions_in, field_path
from flowlang.faults import Fault
from flowlang.javascript import declared_names, free_names
from flowlang.model import CodeStep, Flow, Json, LoopStep, RouterStep, Step, Trigger
from flowlang.structure import step_ids, template_fields, texts_in, walk

TRIGGER_SCOPE = frozenset({"connections", "variables"})
STEP_SCOPE = TRIGGER_SCOPE | {"trigger", "run"}
_HINT_LIMIT = 20
"""Faults that are given a "did you mean": looking for one takes a while."""


class SourceRef(msgspec.Struct, frozen=True, kw_only=True):
    """A text that only the jail can check: an expression that is no plain path, or a code step's source."""

    step_id: str
    field: str
    kind: Literal["expression", "javascript", "typescript"]
    text: str


def sources(flow: Flow) -> list[SourceRef]:
    """Every larger expression and every source, in the order of the document, without those that `validate` refuses."""
    found = []
    for node in [*flow.triggers, *(visit.step for visit in walk(flow.steps))]:
        for name, value in template_fields(node):
            for place, text in texts_in(value, name):
                for expression in _readable_expressions(text):
                    if expression.path is None:
                        field = field_path(place)
                        found.append(SourceRef(step_id=node.id, field=field, kind="expression", text=expression.text))
        if isinstance(node, CodeStep):
            found.append(SourceRef(step_id=node.id, field="source", kind=node.language, text=node.source))
    return found


def _readable_expressions(text: str) -> list[Expression]:
    try:
        return expressions_in(text)
    except ExpressionError:
        return []


def reference_faults(flow: Flow) -> list[Fault]:
    """Faults of every expression of the document."""
    return _Checker(flow).run()


class _Checker:
    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.faults: list[Fault] = []
        self.all_ids = frozenset(step_ids(flow))
        self.trigger_ids = frozenset(trigger.id for trigger in flow.triggers)
        self.loops_around = {
            visit.step.id: [step.id for step in visit.around if isinstance(step, LoopStep)]
            for visit in walk(flow.steps)
        }
        self.inside: list[str] = []
        self.hints = _HINT_LIMIT

    def run(self) -> list[Fault]:
        for trigger in self.flow.triggers:
            self._node(trigger, TRIGGER_SCOPE)
        self._block(self.flow.steps, STEP_SCOPE)
        return self.faults

    def _block(self, steps: list[Step], scope: frozenset[str]) -> frozenset[str]:
        """Check the steps in order; answers what is in scope after them."""
        for step in steps:
            if isinstance(step, LoopStep):
                self._loop(step, scope)
            else:
                self._node(step, scope)
            after = scope
            if isinstance(step, RouterStep):
                for branch in step.branches:
                    after |= self._block(branch.steps, scope)
            scope = after | {step.id}
        return scope

    def _loop(self, step: LoopStep, scope: frozenset[str]) -> None:
        self._field(step, "items", step.items, scope)
        self.inside.append(step.id)
        after = self._block(step.steps, scope | {step.id})
        self._field(step, "collect", step.collect, after)
        self.inside.pop()

    def _node(self, node: Trigger | Step, scope: frozenset[str]) -> None:
        for place, value in template_fields(node):
            for where, text in texts_in(value, place):
                self._text(node, field_path(where), text, scope)

    def _field(self, node: Step, name: str, value: Json, scope: frozenset[str]) -> None:
        for where, text in texts_in(value, (name,)):
            self._text(node, field_path(where), text, scope)

    def _text(self, node: Trigger | Step, field: str, text: str, scope: frozenset[str]) -> None:
        try:
            found = expressions_in(text)
        except ExpressionError as error:
            self.faults.append(Fault(step_id=node.id, field=field, message=error.message, reason=error.reason))
            return
        for expression in found:
            for name in self._names_out_of_scope(expression, scope):
                message = self._message(name, scope, is_trigger=isinstance(node, Trigger))
                self.faults.append(Fault(step_id=node.id, field=field, message=message, reason="NOT_IN_SCOPE"))

    def _names_out_of_scope(self, expression: Expression, scope: frozenset[str]) -> Iterator[str]:
        if expression.path is not None:
            if expression.path.root not in scope:
                yield expression.path.root
            return
        # In a larger expression only names of this document are judged: others may be its own or the library's.
        tokens = list(expression.tokens)
        known = (self.all_ids | STEP_SCOPE) - scope - declared_names(tokens)
        yield from dict.fromkeys(token.text for token in free_names(tokens) if token.text in known)

    def _message(self, name: str, scope: frozenset[str], *, is_trigger: bool) -> str:
        if is_trigger:
            return f"`{name}` does not exist yet when a trigger is set up; use `variables` or `connections`."
        if name in self.trigger_ids:
            return f"`{name}` is a trigger; what it received is in `trigger`, whichever fired."
        loops = [loop for loop in self.loops_around.get(name, []) if loop not in self.inside]
        if loops:
            return f"`{name}` runs once an item inside the loop `{loops[0]}`; outside, use what the loop collects."
        if name in self.all_ids:
            return f"The step `{name}` has not run when this one begins; refer to an earlier step or move it up."
        return f"`{name}` is not known here{self._hint(name, scope)}."

    def _hint(self, name: str, scope: frozenset[str]) -> str:
        self.hints -= 1
        near = get_close_matches(name, sorted(scope), 1) if self.hints >= 0 else []
        return f"; did you mean `{near[0]}`?" if near else "; use a step before this one, `trigger` or `variables`"
