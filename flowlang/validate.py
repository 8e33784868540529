"""What makes a document valid: every fault named, with its step, its field and what to mend.

Decides: ids, bounds, what a router, a loop, an answer need, which pieces and inputs exist.
Leaves: what expressions may refer to to references.py, inputs to schemas.py, the syntax of code and of larger
expressions to the jail (`sources` lists them).
A draft with faults is kept; only publishing it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from flowlang.catalogue import PieceInfo
from flowlang.conditions import OPERATORS, Operator, as_instant_ms, as_number
from flowlang.durations import parse_duration_ms
from flowlang.expressions import field_path
from flowlang.faults import Fault
from flowlang.ids import fault_in_id, has_controls
from flowlang.model import (
    ActionStep,
    Branch,
    CodeStep,
    Condition,
    Flow,
    Json,
    LoopStep,
    RespondStep,
    Retry,
    RouterStep,
    Trigger,
)
from flowlang.patterns import fault_in_pattern, found_in
from flowlang.references import SourceRef, reference_faults, sources
from flowlang.schemas import check_input, is_single_expression
from flowlang.structure import Visit, conditions_of, step_ids, walk

__all__ = ["Fault", "SourceRef", "sources", "validate"]

STEP_LIMIT = 1_000
DEPTH_LIMIT = 20
CONCURRENCY_LIMIT = 100
ATTEMPT_LIMIT = 100
BACKOFF_LIMIT = 100
TIMEOUT_LIMIT_MS = 24 * 3_600_000
INTERVAL_LIMIT_MS = 30 * 24 * 3_600_000
SOURCE_LIMIT_BYTES = 256 * 1024
NAME_LIMIT = 200

WEBHOOK_PIECE = "webhook"
"""The piece whose triggers can be answered by a `respond` step."""

_EXPORTS_CODE = r"\bexport\s+(?:async\s+)?(?:const|let|var|function\s*\*?)\s+code\b|\bexport\s*\{[^}]*\bcode\b[^}]*\}"


def validate(flow: Flow, pieces: Mapping[str, PieceInfo]) -> list[Fault]:
    """Every fault of the document, in its order; empty when it can be published."""
    return [
        *_flow_faults(flow),
        *_id_faults(flow),
        *(fault for trigger in flow.triggers for fault in _trigger_faults(trigger, pieces)),
        *(fault for visit in walk(flow.steps) for fault in _step_faults(visit, flow, pieces)),
        *reference_faults(flow),
    ]


def _flow_faults(flow: Flow) -> Iterator[Fault]:
    if not flow.name.strip():
        yield Fault(field="name", message="The flow has no name; give it one.", reason="NAME_MISSING")
    elif len(flow.name) > NAME_LIMIT:
        yield Fault(field="name", message=f"The name may have {NAME_LIMIT} characters.", reason="NAME_TOO_LONG")
    elif has_controls(flow.name):
        message = "The name holds a control character or a line break; take it out."
        yield Fault(field="name", message=message, reason="NAME_MALFORMED")
    if not flow.triggers:
        yield Fault(field="triggers", message="Nothing starts the flow; add a trigger.", reason="TRIGGER_MISSING")
    count = sum(1 for _ in walk(flow.steps))
    if count > STEP_LIMIT:
        message = f"The flow has {count} steps; at most {STEP_LIMIT} are allowed. Move some into a flow of their own."
        yield Fault(field="steps", message=message, reason="TOO_MANY_STEPS")


def _id_faults(flow: Flow) -> Iterator[Fault]:
    seen: set[str] = set()
    for name in step_ids(flow):
        if fault := fault_in_id(name):
            yield Fault(step_id=name, field="id", message=fault, reason="ID_INVALID")
        elif name in seen:
            message = f"The id `{name}` stands more than once; every trigger and step needs an id of its own."
            yield Fault(step_id=name, field="id", message=message, reason="ID_TAKEN")
        seen.add(name)


def _trigger_faults(trigger: Trigger, pieces: Mapping[str, PieceInfo]) -> Iterator[Fault]:
    piece = pieces.get(trigger.piece)
    if fault := _piece_fault(trigger, piece):
        yield fault
    if piece is None:
        return
    event = piece.triggers.get(trigger.event)
    if event is None:
        message = f"The piece `{piece.name}` has no trigger `{trigger.event}`; it has {_names(piece.triggers)}."
        yield Fault(step_id=trigger.id, field="event", message=message, reason="TRIGGER_UNKNOWN")
    else:
        yield from _input_faults(trigger, event.input_schema)


def _names(named: Mapping[str, object]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(named)) or "none"


def _piece_fault(node: Trigger | ActionStep, piece: PieceInfo | None) -> Fault | None:
    if piece is None:
        message = f"The piece `{node.piece}` is not installed; install it or choose another."
        return Fault(step_id=node.id, field="piece", message=message, reason="PIECE_UNKNOWN")
    if node.version and node.version != piece.version:
        message = f"Version {node.version} of the piece `{piece.name}` is not installed; use {piece.version}."
        return Fault(step_id=node.id, field="version", message=message, reason="PIECE_VERSION_UNKNOWN")
    return None


def _input_faults(node: Trigger | ActionStep, schema: dict[str, Json]) -> Iterator[Fault]:
    for place, message, reason in check_input(node.input, schema):
        yield Fault(step_id=node.id, field=field_path(place), message=message, reason=reason)


def _step_faults(visit: Visit, flow: Flow, pieces: Mapping[str, PieceInfo]) -> Iterator[Fault]:
    step = visit.step
    if len(visit.around) == DEPTH_LIMIT:
        message = f"The step lies in {DEPTH_LIMIT} blocks, one inside the other; at most {DEPTH_LIMIT - 1} are allowed."
        yield Fault(step_id=step.id, message=message, reason="NESTED_TOO_DEEP")
    if isinstance(step, ActionStep):
        yield from _action_faults(step, pieces)
    elif isinstance(step, CodeStep):
        yield from _code_faults(step)
    elif isinstance(step, RouterStep):
        yield from _router_faults(step)
    elif isinstance(step, LoopStep):
        yield from _loop_faults(step)
    else:
        yield from _respond_faults(step, flow)


def _action_faults(step: ActionStep, pieces: Mapping[str, PieceInfo]) -> Iterator[Fault]:
    yield from _timing_faults(step)
    piece = pieces.get(step.piece)
    if fault := _piece_fault(step, piece):
        yield fault
    if piece is None:
        return
    action = piece.actions.get(step.action)
    if action is None:
        message = f"The piece `{piece.name}` has no action `{step.action}`; it has {_names(piece.actions)}."
        yield Fault(step_id=step.id, field="action", message=message, reason="ACTION_UNKNOWN")
    else:
        yield from _input_faults(step, action.input_schema)


def _code_faults(step: CodeStep) -> Iterator[Fault]:
    yield from _timing_faults(step)
    size = len(step.source.encode("utf-8", "replace"))
    if size > SOURCE_LIMIT_BYTES:
        message = f"The source has {size} bytes; at most {SOURCE_LIMIT_BYTES} (256 KiB) are allowed."
        yield Fault(step_id=step.id, field="source", message=message, reason="SOURCE_TOO_BIG")
    elif not found_in(_EXPORTS_CODE, step.source, case_sensitive=True):
        message = "The source exports no function `code`; begin it with `export const code = async (input) => …`."
        yield Fault(step_id=step.id, field="source", message=message, reason="CODE_NOT_EXPORTED")


def _timing_faults(step: ActionStep | CodeStep) -> Iterator[Fault]:
    if step.timeout:
        yield from _duration_faults(step.id, "timeout", step.timeout, 1, TIMEOUT_LIMIT_MS)
    if step.retry is not None:
        yield from _retry_faults(step.id, step.retry)


def _duration_faults(step_id: str, field: str, text: str, low_ms: int, high_ms: int) -> Iterator[Fault]:
    try:
        duration_ms = parse_duration_ms(text)
    except ValueError as error:
        yield Fault(step_id=step_id, field=field, message=str(error), reason="DURATION_INVALID")
        return
    if not low_ms <= duration_ms <= high_ms:
        message = f"`{text}` is out of bounds; between {low_ms}ms and {high_ms // 3_600_000}h are allowed."
        yield Fault(step_id=step_id, field=field, message=message, reason="DURATION_OUT_OF_BOUNDS")


def _retry_faults(step_id: str, retry: Retry) -> Iterator[Fault]:
    bounds = (
        ("max_attempts", retry.max_attempts, 1, ATTEMPT_LIMIT),
        ("backoff", retry.backoff, 1, BACKOFF_LIMIT),
        ("jitter", retry.jitter, 0, 1),
    )
    for name, value, low, high in bounds:
        if not low <= value <= high:
            message = f"`{name}` must lie between {low} and {high}."
            yield Fault(step_id=step_id, field=f"retry.{name}", message=message, reason="RETRY_OUT_OF_BOUNDS")
    yield from _duration_faults(step_id, "retry.initial_interval", retry.initial_interval, 0, INTERVAL_LIMIT_MS)
    yield from _duration_faults(step_id, "retry.max_interval", retry.max_interval, 0, INTERVAL_LIMIT_MS)


def _router_faults(step: RouterStep) -> Iterator[Fault]:
    if all(branch.fallback for branch in step.branches):
        message = "The router has no branch with a condition; add one."
        yield Fault(step_id=step.id, field="branches", message=message, reason="BRANCH_MISSING")
    if sum(branch.fallback for branch in step.branches) > 1:
        message = "The router has more than one fallback; keep one."
        yield Fault(step_id=step.id, field="branches", message=message, reason="FALLBACK_TWICE")
    for number, branch in enumerate(step.branches):
        yield from _branch_faults(step.id, f"branches[{number}]", branch)
    for place, condition in conditions_of(step):
        yield from _condition_faults(step.id, field_path(place), condition)


def _branch_faults(step_id: str, field: str, branch: Branch) -> Iterator[Fault]:
    if not branch.name.strip():
        yield Fault(step_id=step_id, field=f"{field}.name", message="The branch has no name.", reason="NAME_MISSING")
    if branch.fallback and branch.when:
        message = "A fallback runs when no other branch does; take its conditions out."
        yield Fault(step_id=step_id, field=f"{field}.when", message=message, reason="FALLBACK_WITH_CONDITION")
    if not branch.fallback and not branch.when:
        message = "The branch has no condition; add one or make it the fallback."
        yield Fault(step_id=step_id, field=f"{field}.when", message=message, reason="CONDITION_MISSING")
    for number, group in enumerate(branch.when):
        if not group:
            message = "This group of conditions is empty; add one or take the group out."
            yield Fault(step_id=step_id, field=f"{field}.when[{number}]", message=message, reason="CONDITION_MISSING")


def _condition_faults(step_id: str, field: str, condition: Condition) -> Iterator[Fault]:
    find = _expression_faults if condition.expression else _comparison_faults
    for name, message, reason in find(condition):
        yield Fault(step_id=step_id, field=f"{field}.{name}", message=message, reason=reason)


def _expression_faults(condition: Condition) -> Iterator[tuple[str, str, str]]:
    if condition.op or condition.left is not None or condition.right is not None:
        yield "expression", "A free expression stands alone; take `left`, `op` and `right` out.", "CONDITION_AMBIGUOUS"
    if not is_single_expression(condition.expression):
        yield "expression", "Write one expression: {{ … }}.", "EXPRESSION_NEEDED"


def _comparison_faults(condition: Condition) -> Iterator[tuple[str, str, str]]:
    operator = OPERATORS.get(condition.op)
    if operator is None:
        yield "op", f"`{condition.op}` is no operator; use one of {', '.join(OPERATORS)}.", "OPERATOR_UNKNOWN"
        return
    name, binary = operator.name, operator.arity > 1
    if condition.left is None:
        yield "left", "Say what is compared.", "OPERAND_MISSING"
    if not binary and condition.right is not None:
        yield "right", f"`{name}` compares with nothing; take `right` out.", "OPERAND_UNEXPECTED"
    if binary and condition.right is None:
        yield "right", f"`{name}` needs a value to compare with.", "OPERAND_MISSING"
    for side, value in (("left", condition.left), ("right", condition.right if binary else None)):
        if message := _operand_fault(operator, side, value):
            yield side, message, "OPERAND_WRONG_TYPE"


def _operand_fault(operator: Operator, name: str, value: Json) -> str:
    """What is wrong with a constant operand; empty for an expression, whose value is not known yet."""
    if value is None or (isinstance(value, str) and "{{" in value):
        return ""
    group, op = operator.group, operator.name
    if group == "number" and as_number(value) is None:
        return f"`{op}` compares numbers; this is none."
    if group == "date" and as_instant_ms(value) is None:
        return f"`{op}` compares dates; write one like 2026-01-31T09:00:00+01:00."
    if group == "text" and isinstance(value, list | dict):
        return f"`{op}` compares texts; this is none."
    if group == "list" and name == "left" and not isinstance(value, list):
        return f"`{op}` needs a list."
    if op in ("matches", "does_not_match") and name == "right":
        return fault_in_pattern(value) if isinstance(value, str) else "A regular expression is a text."
    return ""


def _loop_faults(step: LoopStep) -> Iterator[Fault]:
    if not is_single_expression(step.items):
        message = "Write one expression that gives a list, like {{trigger.body.lines}}."
        yield Fault(step_id=step.id, field="items", message=message, reason="EXPRESSION_NEEDED")
    if not 1 <= step.concurrency <= CONCURRENCY_LIMIT:
        message = f"`concurrency` must lie between 1 and {CONCURRENCY_LIMIT}."
        yield Fault(step_id=step.id, field="concurrency", message=message, reason="CONCURRENCY_OUT_OF_BOUNDS")


def _respond_faults(step: RespondStep, flow: Flow) -> Iterator[Fault]:
    if all(trigger.piece != WEBHOOK_PIECE for trigger in flow.triggers):
        message = "Nobody waits for an answer: the flow has no webhook trigger. Add one or take this step out."
        yield Fault(step_id=step.id, message=message, reason="RESPOND_WITHOUT_WEBHOOK")
    status = step.status
    whole = isinstance(status, int) and not isinstance(status, bool)
    if not is_single_expression(status) and not (whole and 200 <= int(str(status)) <= 599):
        message = "`status` must be a number between 200 and 599, or one expression."
        yield Fault(step_id=step.id, field="status", message=message, reason="STATUS_INVALID")
