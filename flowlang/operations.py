"""Edit operations on a draft: each small, checked, and told apart by `op`.

Decides: what each operation needs to exist and does, and that none makes two steps of one id, a tree that is too deep
or a document that is too big.
Leaves: the vocabulary to operation_kinds.py, the tree to editing.py, whether the result is valid to validate.py (a
draft may hold faults), revisions to the flows service.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from flowlang.documents import DocumentError, explain, fault_in_extent, flow_from_value
from flowlang.editing import Found, change_step, copies, find_step, insert_steps, rename_references
from flowlang.ids import fault_in_id, has_controls
from flowlang.model import Branch, Flow, Json, RouterStep, Step, Trigger
from flowlang.operation_kinds import (
    AddBranch,
    AddStep,
    AddTrigger,
    DeleteBranch,
    DeleteStep,
    DeleteTrigger,
    DuplicateBranch,
    DuplicateStep,
    Import,
    MoveBranch,
    MoveStep,
    Operation,
    PasteSteps,
    Placed,
    Rename,
    SetNote,
    SkipStep,
    UpdateBranch,
    UpdateStep,
    UpdateTrigger,
)
from flowlang.structure import bodies, step_ids, walk

__all__ = ["Operation", "OperationError", "apply", "apply_all", "decode_operation"]

DEPTH_LIMIT = 20
_NAME_LIMIT = 200


class OperationError(Exception):
    """An operation cannot be applied. `index` is its position in the list that was given."""

    def __init__(self, message: str, index: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.index = index


_decoder = msgspec.json.Decoder(Operation)


def decode_operation(data: bytes, index: int = 0) -> Operation:
    """One operation from its JSON. Raises OperationError."""
    try:
        operation: Operation = _decoder.decode(data)
    except msgspec.ValidationError as error:
        sentence, _ = explain(error)
        raise OperationError(f"The operation cannot be read. {sentence}", index) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise OperationError(f"The operation is no JSON that can be read: {error}.", index) from None
    return operation


def apply(flow: Flow, operation: Operation) -> Flow:
    """The flow after the operation. Raises OperationError; the given flow stays as it was."""
    return apply_all(flow, [operation])


def apply_all(flow: Flow, operations: Sequence[Operation]) -> Flow:
    """The flow after all operations, in order. Raises OperationError with the index of the one that cannot be."""
    for index, operation in enumerate(operations):
        try:
            flow = _applied(flow, operation)
        except OperationError as error:
            raise OperationError(error.message, index) from None
        except RecursionError:
            raise OperationError("The operation nests deeper than a document may; make it flatter.", index) from None
    if fault := fault_in_extent(flow):
        raise OperationError(fault, max(len(operations) - 1, 0))
    return flow


def _applied(flow: Flow, operation: Operation) -> Flow:
    changed = _APPLY[type(operation)](flow, operation)
    before, after = Counter(step_ids(flow)), Counter(step_ids(changed))
    twice = [name for name, count in after.items() if count > max(1, before[name])]
    if twice:
        raise OperationError(f"The id `{twice[0]}` is taken; every trigger and step needs an id of its own.")
    if any(len(visit.around) >= DEPTH_LIMIT for visit in walk(changed.steps)):
        raise OperationError(f"Steps may nest {DEPTH_LIMIT} deep; this would be deeper.")
    return changed


def _find(flow: Flow, step_id: str) -> Found:
    found = find_step(flow, step_id)
    if found is None:
        raise OperationError(f"There is no step `{step_id}`; it may have been deleted.")
    return found


def _check_ids(steps: list[Step]) -> None:
    for visit in walk(steps):
        if fault := fault_in_id(visit.step.id):
            raise OperationError(fault)


_T = TypeVar("_T")
_N = TypeVar("_N", bound=msgspec.Struct)


def _with_changes(node: _N, changes: dict[str, Json], kind: Any) -> _N:
    """The node with fields replaced, checked like a document."""
    tag = node.__struct_config__.tag
    if "kind" in changes and changes["kind"] != tag:
        raise OperationError("A step keeps its kind; add a new step and delete this one.")
    value = msgspec.to_builtins(node) | changes
    try:
        changed: _N = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        sentence, _ = explain(error)
        raise OperationError(f"The change cannot be made. {sentence}") from None
    return changed


def _insert(flow: Flow, place: Placed, steps: list[Step]) -> Flow:
    if place.after:
        before = _find(flow, place.after)
        return insert_steps(flow, before.parent, before.branch, before.position + 1, steps)
    body = _body(flow, place)
    index = len(body) if place.index is None else place.index
    if not 0 <= index <= len(body):
        raise OperationError(f"There are {len(body)} steps in this place; the index {index} is out of it.")
    return insert_steps(flow, place.parent, place.branch, index, steps)


def _body(flow: Flow, place: Placed) -> list[Step]:
    if not place.parent:
        return flow.steps
    held = bodies(_find(flow, place.parent).step)
    if not 0 <= place.branch < len(held):
        raise OperationError(f"The step `{place.parent}` has no branch {place.branch} that holds steps.")
    return held[place.branch]


def _add_step(flow: Flow, operation: AddStep) -> Flow:
    _check_ids([operation.step])
    return _insert(flow, operation, [operation.step])


def _paste_steps(flow: Flow, operation: PasteSteps) -> Flow:
    _check_ids(operation.steps)
    return _insert(flow, operation, copies(operation.steps, flow))


def _update_step(flow: Flow, operation: UpdateStep) -> Flow:
    old = _find(flow, operation.step_id).step
    new: Step = _with_changes(old, operation.changes, Step)
    if new.id == old.id:
        return change_step(flow, old.id, lambda _: [new])
    if fault := fault_in_id(new.id):
        raise OperationError(fault)
    changed = change_step(flow, old.id, lambda _: [replace(new, id=old.id)])
    renamed = rename_references(changed, old.id, new.id)
    return change_step(renamed, old.id, lambda step: [replace(step, id=new.id)])


def _move_step(flow: Flow, operation: MoveStep) -> Flow:
    step = _find(flow, operation.step_id).step
    inside = {visit.step.id for visit in walk([step])}
    if operation.after in inside or operation.parent in inside:
        raise OperationError(f"The step `{step.id}` cannot be moved into or after itself.")
    return _insert(change_step(flow, step.id, lambda _: []), operation, [step])


def _duplicate_step(flow: Flow, operation: DuplicateStep) -> Flow:
    step = _find(flow, operation.step_id).step
    return change_step(flow, step.id, lambda _: [step, *copies([step], flow)])


def _delete_step(flow: Flow, operation: DeleteStep) -> Flow:
    _find(flow, operation.step_id)
    return change_step(flow, operation.step_id, lambda _: [])


def _skip_step(flow: Flow, operation: SkipStep) -> Flow:
    _find(flow, operation.step_id)
    return change_step(flow, operation.step_id, lambda step: [replace(step, skip=operation.skip)])


def _change_branches(flow: Flow, step_id: str, change: Callable[[list[Branch]], list[Branch]]) -> Flow:
    router = _find(flow, step_id).step
    if not isinstance(router, RouterStep):
        raise OperationError(f"The step `{step_id}` is no router; only a router has branches.")
    new = replace(router, branches=change(router.branches))
    return change_step(flow, step_id, lambda _: [new])


def _at(items: Sequence[object], index: int, what: str) -> int:
    if not 0 <= index < len(items):
        raise OperationError(f"There is no {what} {index}; there are {len(items)}.")
    return index


def _inserted(items: list[_T], index: int | None, item: _T, what: str) -> list[_T]:
    index = len(items) if index is None else index
    if index != len(items):
        _at(items, index, what)
    return [*items[:index], item, *items[index:]]


def _add_branch(flow: Flow, operation: AddBranch) -> Flow:
    _check_ids(operation.branch.steps)
    return _change_branches(
        flow,
        operation.step_id,
        lambda branches: _inserted(branches, operation.index, operation.branch, "branch"),
    )


def _update_branch(flow: Flow, operation: UpdateBranch) -> Flow:
    def change(branches: list[Branch]) -> list[Branch]:
        at = _at(branches, operation.branch, "branch")
        return [*branches[:at], _with_changes(branches[at], operation.changes, Branch), *branches[at + 1 :]]

    return _change_branches(flow, operation.step_id, change)


def _move_branch(flow: Flow, operation: MoveBranch) -> Flow:
    def change(branches: list[Branch]) -> list[Branch]:
        at = _at(branches, operation.branch, "branch")
        return _inserted([*branches[:at], *branches[at + 1 :]], operation.index, branches[at], "branch")

    return _change_branches(flow, operation.step_id, change)


def _duplicate_branch(flow: Flow, operation: DuplicateBranch) -> Flow:
    def change(branches: list[Branch]) -> list[Branch]:
        at = _at(branches, operation.branch, "branch")
        old = branches[at]
        copy = replace(old, name=f"{old.name} (copy)", fallback=False, steps=copies(old.steps, flow))
        return [*branches[: at + 1], copy, *branches[at + 1 :]]

    return _change_branches(flow, operation.step_id, change)


def _delete_branch(flow: Flow, operation: DeleteBranch) -> Flow:
    def change(branches: list[Branch]) -> list[Branch]:
        at = _at(branches, operation.branch, "branch")
        return [*branches[:at], *branches[at + 1 :]]

    return _change_branches(flow, operation.step_id, change)


def _trigger_index(flow: Flow, trigger_id: str) -> int:
    for index, trigger in enumerate(flow.triggers):
        if trigger.id == trigger_id:
            return index
    raise OperationError(f"There is no trigger `{trigger_id}`; it may have been deleted.")


def _with_trigger(flow: Flow, index: int, new: list[Trigger]) -> Flow:
    return replace(flow, triggers=[*flow.triggers[:index], *new, *flow.triggers[index + 1 :]])


def _add_trigger(flow: Flow, operation: AddTrigger) -> Flow:
    if fault := fault_in_id(operation.trigger.id):
        raise OperationError(fault)
    return replace(flow, triggers=_inserted(flow.triggers, operation.index, operation.trigger, "trigger"))


def _update_trigger(flow: Flow, operation: UpdateTrigger) -> Flow:
    index = _trigger_index(flow, operation.trigger_id)
    new = _with_changes(flow.triggers[index], operation.changes, Trigger)
    if new.id != operation.trigger_id and (fault := fault_in_id(new.id)):
        raise OperationError(fault)
    return _with_trigger(flow, index, [new])


def _delete_trigger(flow: Flow, operation: DeleteTrigger) -> Flow:
    return _with_trigger(flow, _trigger_index(flow, operation.trigger_id), [])


def _rename(flow: Flow, operation: Rename) -> Flow:
    name = operation.name.strip()
    if not 0 < len(name) <= _NAME_LIMIT:
        raise OperationError(f"A flow's name has 1 to {_NAME_LIMIT} characters.")
    if has_controls(name):
        raise OperationError("A flow's name holds no control characters and no line breaks.")
    return replace(flow, name=name)


def _set_note(flow: Flow, operation: SetNote) -> Flow:
    if not operation.id:
        return replace(flow, note=operation.note)
    if find_step(flow, operation.id):
        return change_step(flow, operation.id, lambda step: [replace(step, note=operation.note)])
    index = _trigger_index(flow, operation.id)
    return _with_trigger(flow, index, [replace(flow.triggers[index], note=operation.note)])


def _import(flow: Flow, operation: Import) -> Flow:  # noqa: ARG001  # every operation takes the flow; this one replaces it
    try:
        imported = flow_from_value(operation.document)
    except DocumentError as error:
        raise OperationError(error.message) from None
    twice = [name for name, count in Counter(step_ids(imported)).items() if count > 1]
    if twice:
        raise OperationError(f"The id `{twice[0]}` stands more than once in the document; make its ids differ.")
    return imported


_APPLY: dict[type[Any], Callable[[Flow, Any], Flow]] = {
    AddStep: _add_step,
    PasteSteps: _paste_steps,
    UpdateStep: _update_step,
    MoveStep: _move_step,
    DuplicateStep: _duplicate_step,
    DeleteStep: _delete_step,
    SkipStep: _skip_step,
    AddBranch: _add_branch,
    UpdateBranch: _update_branch,
    MoveBranch: _move_branch,
    DuplicateBranch: _duplicate_branch,
    DeleteBranch: _delete_branch,
    AddTrigger: _add_trigger,
    UpdateTrigger: _update_trigger,
    DeleteTrigger: _delete_trigger,
    Rename: _rename,
    SetNote: _set_note,
    Import: _import,
}
