"""The vocabulary of edit operations: their names (`op`) and fields.

Decides: how an operation is written. Leaves: what it does to operations.py.

A place for steps is told in one of two ways: `after` names the step before it; or `parent` (a step's id, empty for the
flow), `branch` (which of a router's branches, 0 for a loop) and `index` (null: at the end). Indices count in the list
without what moves.
"""

from __future__ import annotations

import msgspec

from flowlang.model import Branch, Json, Step, Trigger


class Edit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op"):
    """Base of every operation."""


class Placed(Edit, frozen=True, kw_only=True):
    """Base of operations that put steps into a place."""

    parent: str = ""
    branch: int = 0
    index: int | None = None
    after: str = ""


class AddStep(Placed, frozen=True, kw_only=True, tag="add_step"):
    """Put a new step, with all inside it, into a place."""

    step: Step


class PasteSteps(Placed, frozen=True, kw_only=True, tag="paste_steps"):
    """Put copied steps into a place; ids that are taken get a number."""

    steps: list[Step]


class UpdateStep(Edit, frozen=True, kw_only=True, tag="update_step"):
    """Replace fields of a step. A new `id` is carried into every expression that refers to it."""

    step_id: str
    changes: dict[str, Json]


class MoveStep(Placed, frozen=True, kw_only=True, tag="move_step"):
    """Take a step, with all inside it, to another place."""

    step_id: str


class DuplicateStep(Edit, frozen=True, kw_only=True, tag="duplicate_step"):
    """Put a copy of a step after it."""

    step_id: str


class DeleteStep(Edit, frozen=True, kw_only=True, tag="delete_step"):
    """Take a step out, with all inside it."""

    step_id: str


class SkipStep(Edit, frozen=True, kw_only=True, tag="skip_step"):
    """Have a step skipped, or no longer."""

    step_id: str
    skip: bool = True


class AddBranch(Edit, frozen=True, kw_only=True, tag="add_branch"):
    """Put a branch into a router; without `index` at the end."""

    step_id: str
    branch: Branch
    index: int | None = None


class UpdateBranch(Edit, frozen=True, kw_only=True, tag="update_branch"):
    """Replace fields of a branch: its name, conditions, whether it is the fallback."""

    step_id: str
    branch: int
    changes: dict[str, Json]


class MoveBranch(Edit, frozen=True, kw_only=True, tag="move_branch"):
    """Take a branch to another index of its router."""

    step_id: str
    branch: int
    index: int


class DuplicateBranch(Edit, frozen=True, kw_only=True, tag="duplicate_branch"):
    """Put a copy of a branch after it. The copy of a fallback is none."""

    step_id: str
    branch: int


class DeleteBranch(Edit, frozen=True, kw_only=True, tag="delete_branch"):
    """Take a branch out, with all inside it."""

    step_id: str
    branch: int


class AddTrigger(Edit, frozen=True, kw_only=True, tag="add_trigger"):
    """Put a trigger into the flow; without `index` at the end."""

    trigger: Trigger
    index: int | None = None


class UpdateTrigger(Edit, frozen=True, kw_only=True, tag="update_trigger"):
    """Replace fields of a trigger."""

    trigger_id: str
    changes: dict[str, Json]


class DeleteTrigger(Edit, frozen=True, kw_only=True, tag="delete_trigger"):
    """Take a trigger out."""

    trigger_id: str


class Rename(Edit, frozen=True, kw_only=True, tag="rename"):
    """Give the flow another name."""

    name: str


class SetNote(Edit, frozen=True, kw_only=True, tag="set_note"):
    """Write the note of a step or trigger (`id`), or of the flow (empty)."""

    id: str = ""
    note: str


class Import(Edit, frozen=True, kw_only=True, tag="import"):
    """Replace the whole document."""

    document: Json


Operation = (
    AddStep
    | PasteSteps
    | UpdateStep
    | MoveStep
    | DuplicateStep
    | DeleteStep
    | SkipStep
    | AddBranch
    | UpdateBranch
    | MoveBranch
    | DuplicateBranch
    | DeleteBranch
    | AddTrigger
    | UpdateTrigger
    | DeleteTrigger
    | Rename
    | SetNote
    | Import
)
