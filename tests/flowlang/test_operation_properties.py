"""The algebra of edit operations, over random documents."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlang.documents import flow_to_value, read_json, read_yaml, write_json, write_yaml
from flowlang.editing import find_step
from flowlang.model import Branch, CodeStep, Flow, Json, Step, Trigger
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
    SetNote,
    UpdateStep,
)
from flowlang.operations import OperationError, apply
from flowlang.structure import step_ids, walk
from tests.flowlang.strategies import flows, steps, triggers


def input_of(flow: Flow, step_id: str) -> Json:
    found = find_step(flow, step_id)
    assert found is not None
    assert isinstance(found.step, CodeStep)
    return found.step.input["a"]


@st.composite
def edits(draw: st.DrawFn) -> tuple[Flow, list[Operation]]:
    """A document and operations, most of which fit it."""
    flow = draw(flows)
    return flow, draw(st.lists(_operation(flow), max_size=6))


def _operation(flow: Flow) -> st.SearchStrategy[Operation]:
    ids = st.sampled_from([*step_ids(flow), "s1", "s2", "nobody"])
    indices = st.none() | st.integers(0, 3)
    numbers = st.integers(0, 2)
    place: dict[str, st.SearchStrategy[str | int | None]] = {
        "parent": st.just("") | ids,
        "branch": numbers,
        "index": indices,
        "after": st.just("") | ids,
    }
    new_ids = st.sampled_from(["n1", "n2", "s1", "trigger"])
    named = st.tuples(steps, new_ids).map(lambda pair: msgspec.structs.replace(pair[0], id=pair[1]))
    branch = st.builds(Branch, name=st.just("B"), steps=st.lists(named, max_size=1))
    make: list[st.SearchStrategy[Operation]] = [
        st.builds(AddStep, step=named, **place),
        st.builds(PasteSteps, steps=st.lists(named, max_size=2), **place),
        st.builds(MoveStep, step_id=ids, **place),
        st.builds(
            UpdateStep, step_id=ids, changes=st.fixed_dictionaries({}, optional={"id": new_ids, "skip": st.booleans()})
        ),
        st.builds(DuplicateStep, step_id=ids),
        st.builds(DeleteStep, step_id=ids),
        st.builds(AddBranch, step_id=ids, branch=branch, index=indices),
        st.builds(MoveBranch, step_id=ids, branch=numbers, index=numbers),
        st.builds(DuplicateBranch, step_id=ids, branch=numbers),
        st.builds(DeleteBranch, step_id=ids, branch=numbers),
        st.builds(DeleteTrigger, trigger_id=ids),
        st.builds(SetNote, id=ids, note=st.text(max_size=3)),
    ]
    return st.one_of(make)


def applied(flow: Flow, operations: list[Operation]) -> Flow:
    """The flow after those operations that can be applied."""
    for operation in operations:
        try:
            flow = apply(flow, operation)
        except OperationError:
            continue
    return flow


few = settings(max_examples=40)
"""Drawing a document and edits that fit it takes most of the time."""


class TestAlgebra:
    @few
    @given(edit=edits())
    def test_no_operation_makes_an_id_stand_twice(self, edit: tuple[Flow, list[Operation]]) -> None:
        ids = step_ids(applied(*edit))
        assert len(ids) == len(set(ids))

    @few
    @given(edit=edits())
    def test_documents_survive_both_texts_after_any_operations(self, edit: tuple[Flow, list[Operation]]) -> None:
        flow = applied(*edit)
        assert read_json(write_json(flow)) == flow
        assert read_yaml(write_yaml(flow).encode()) == flow

    @few
    @given(edit=edits())
    def test_the_document_before_stays_as_it_was(self, edit: tuple[Flow, list[Operation]]) -> None:
        flow, operations = edit
        before = write_json(flow)
        applied(flow, operations)
        assert write_json(flow) == before

    @few
    @given(flow=flows, new=steps, data=st.data())
    def test_deleting_what_was_added_gives_the_document_back(self, flow: Flow, new: Step, data: st.DataObject) -> None:
        after = data.draw(st.sampled_from(["", *(visit.step.id for visit in walk(flow.steps))]))
        pasted = apply(flow, PasteSteps(steps=[new], after=after))
        (added,) = [one.id for one in _new_tops(flow, pasted)]
        assert apply(pasted, DeleteStep(step_id=added)) == flow

    @few
    @given(flow=flows, data=st.data())
    def test_deleting_a_copy_gives_the_document_back(self, flow: Flow, data: st.DataObject) -> None:
        ids = [visit.step.id for visit in walk(flow.steps)]
        if not ids:
            return
        copied = apply(flow, DuplicateStep(step_id=data.draw(st.sampled_from(ids))))
        (added,) = [one.id for one in _new_tops(flow, copied)]
        assert apply(copied, DeleteStep(step_id=added)) == flow

    @few
    @given(flow=flows, data=st.data())
    def test_moving_there_and_back_gives_the_document_back(self, flow: Flow, data: st.DataObject) -> None:
        ids = [visit.step.id for visit in walk(flow.steps)]
        if not ids:
            return
        moved = data.draw(st.sampled_from(ids))
        found = find_step(flow, moved)
        assert found is not None
        there = apply(flow, MoveStep(step_id=moved, index=0))
        back = MoveStep(step_id=moved, parent=found.parent, branch=found.branch, index=found.position)
        assert apply(there, back) == flow

    @few
    @given(flow=flows, data=st.data())
    def test_renaming_there_and_back_gives_the_document_back(self, flow: Flow, data: st.DataObject) -> None:
        ids = [visit.step.id for visit in walk(flow.steps)]
        if not ids:
            return
        old = data.draw(st.sampled_from(ids))
        flow = apply(
            flow, AddStep(step=CodeStep(id="user", source="", input={"a": f"{{{{{old}.x}}}}{{{{ f({old}) }}}}"}))
        )
        there = apply(flow, UpdateStep(step_id=old, changes={"id": "other"}))
        assert input_of(there, "user") == "{{other.x}}{{ f(other) }}"
        assert apply(there, UpdateStep(step_id="other", changes={"id": old})) == flow

    @few
    @given(flow=flows, trigger=triggers)
    def test_deleting_an_added_trigger_gives_the_document_back(self, flow: Flow, trigger: Trigger) -> None:
        added = apply(flow, AddTrigger(trigger=msgspec.structs.replace(trigger, id="added")))
        assert apply(added, DeleteTrigger(trigger_id="added")) == flow

    @few
    @given(flow=flows)
    def test_importing_a_document_gives_that_document(self, flow: Flow) -> None:
        assert apply(Flow(name="Before"), Import(document=flow_to_value(flow))) == flow


def _new_tops(before: Flow, after: Flow) -> list[Step]:
    """Steps that are new and lie in no other new step."""
    old = set(step_ids(before))
    is_new: Callable[[Step], bool] = lambda one: one.id not in old  # noqa: E731  # two uses, one line
    return [visit.step for visit in walk(after.steps) if is_new(visit.step) and not any(map(is_new, visit.around))]
