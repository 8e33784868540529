"""Drafts: edited by operations on the revision that was seen; every fault told, none refused."""

import asyncio
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from millrace.flows.v1 import draft_pb2

from chassis.errors import Conflict, Invalid, NotFound, TooLarge
from chassis.identity import acting_as
from chassis.ids import new_text_id
from services.flows import checks
from tests.services.flows.running import Flows, code, document, member

pytestmark = pytest.mark.asyncio(loop_scope="module")


def add(step_id: str, source: str = "export const code = () => 1") -> dict[str, object]:
    return {"op": "add_step", "step": code(step_id, source)}


def step_ids(draft: draft_pb2.Draft) -> list[str]:
    return [step["id"] for step in json.loads(draft.document).get("steps", [])]


def nested(depth: int) -> dict[str, object]:
    value: dict[str, object] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


async def test_operations_change_the_draft_and_its_revision(flows: Flows) -> None:
    caller = member()
    flow_id = (await flows.create(caller, document())).flow.id
    edited = await flows.edit(caller, flow_id, 1, add("one"), add("two"), {"op": "rename", "name": "Renamed"})
    assert (edited.revision, step_ids(edited)) == (2, ["one", "two"])
    assert edited == await flows.draft(caller, flow_id)
    assert (await flows.flow(caller, flow_id)).name == "Renamed"


async def test_every_fault_is_stored_and_returned_with_its_step_and_field(flows: Flows) -> None:
    """Those of the document, of pieces that are not there, and those that only V8 can tell."""
    caller = member()
    flow_id = (await flows.create(caller, document())).flow.id
    edited = await flows.edit(
        caller,
        flow_id,
        1,
        add("one", "export const code = ("),
        {"op": "add_step", "step": {"id": "two", "kind": "action", "piece": "nowhere", "action": "go"}},
        {"op": "add_step", "step": {**code("three"), "input": {"a": {"b": "{{ 1 + }}"}}}},
        {"op": "add_step", "step": {**code("four"), "input": {"x": "{{later.x}}"}, "timeout": "soon"}},
    )
    found = {(fault.step_id, fault.field, fault.reason) for fault in edited.faults}
    assert found >= {
        ("one", "source", "SYNTAX_ERROR"),
        ("two", "piece", "PIECE_UNKNOWN"),
        ("three", "input.a.b", "SYNTAX_ERROR"),
        ("four", "timeout", "DURATION_INVALID"),
    }
    assert {fault.step_id for fault in edited.faults} == {"one", "two", "three", "four"}
    assert all(fault.message for fault in edited.faults)
    assert (await flows.draft(caller, flow_id)).faults == edited.faults
    assert not (await flows.flow(caller, flow_id)).draft_valid


async def test_faults_go_when_they_are_mended(flows: Flows) -> None:
    caller = member()
    flow_id = (await flows.create(caller, document(code("one", "export const code = (")))).flow.id
    change = {"op": "update_step", "step_id": "one", "changes": {"source": "export const code = () => 1"}}
    edited = await flows.edit(caller, flow_id, 1, change)
    assert not edited.faults
    assert (await flows.flow(caller, flow_id)).draft_valid


async def test_an_edit_on_an_older_revision_is_refused_with_the_current_one(flows: Flows) -> None:
    caller = member()
    flow_id = (await flows.create(caller, document())).flow.id
    await flows.edit(caller, flow_id, 1, add("one"))
    for seen in (1, 3):
        with pytest.raises(Conflict) as refused:
            await flows.edit(caller, flow_id, seen, add("two"))
        assert refused.value.reason == "DRAFT_STALE"
        assert refused.value.details == {"current_revision": 2}
    assert step_ids(await flows.draft(caller, flow_id)) == ["one"]


@pytest.mark.parametrize(
    ("operation", "index"),
    [
        ({"op": "delete_step", "step_id": "gone"}, 1),
        ({"op": "dance"}, 1),
        ({"op": "add_step", "step": {"kind": "code"}}, 1),
        ({"op": "add_step", "step": code("one")}, 1),
        ({"op": "update_step", "step_id": "one", "changes": {"id": "two", "input": nested(900)}}, 1),
    ],
)
async def test_one_operation_that_cannot_be_applied_refuses_all(
    flows: Flows, operation: dict[str, object], index: int
) -> None:
    caller = member()
    flow_id = (await flows.create(caller, document())).flow.id
    with pytest.raises(Invalid) as refused:
        await flows.edit(caller, flow_id, 1, add("one"), operation, add("two"))
    assert refused.value.reason == "OPERATION_INVALID"
    assert refused.value.details == {"operation": index}
    assert f"Operation {index + 1} of 3" in refused.value.message
    assert (await flows.draft(caller, flow_id)).revision == 1


async def test_an_edit_id_makes_an_edit_safe_to_repeat(flows: Flows) -> None:
    caller = member()
    flow_id = (await flows.create(caller, document())).flow.id
    first = await flows.edit(caller, flow_id, 1, add("one"), edit_id="e\0 1")
    again = await flows.edit(caller, flow_id, 1, add("one"), edit_id="e\0 1")
    assert again == first
    await flows.edit(caller, flow_id, 2, add("two"), edit_id="e2")
    late = await flows.edit(caller, flow_id, 1, add("one"), edit_id="e\0 1")
    assert (late.revision, step_ids(late)) == (3, ["one", "two"])
    other = (await flows.create(caller, document())).flow.id
    assert (await flows.edit(caller, other, 1, add("x"), edit_id="e2")).revision == 2


async def test_an_edit_that_was_refused_may_be_repeated_with_its_id(flows: Flows) -> None:
    caller = member()
    flow_id = (await flows.create(caller, document())).flow.id
    await flows.edit(caller, flow_id, 1, add("one"))
    with pytest.raises(Conflict):
        await flows.edit(caller, flow_id, 1, add("two"), edit_id="e")
    assert (await flows.edit(caller, flow_id, 2, add("two"), edit_id="e")).revision == 3


async def test_edit_ids_are_forgotten_after_two_hundred_revisions(flows: Flows) -> None:
    caller = member()
    flow_id = (await flows.create(caller, document())).flow.id
    await flows.edit(caller, flow_id, 1, add("one"), edit_id="old")
    await flows.database.execute("UPDATE flows.flow SET draft_revision = 300 WHERE id = $1", flow_id)
    await flows.edit(caller, flow_id, 300, add("two"), edit_id="new")
    kept = await flows.database.fetch("SELECT edit_id FROM flows.edit WHERE flow_id = $1", flow_id)
    assert [row["edit_id"] for row in kept] == [b"new"]


async def test_the_operations_of_one_edit_are_bounded(flows: Flows) -> None:
    caller = member()
    flow_id = (await flows.create(caller, document())).flow.id
    with pytest.raises(TooLarge):
        await flows.edit(caller, flow_id, 1, *[{"op": "set_note", "note": "x" * 300_000}] * 4)
    with pytest.raises(Invalid):
        await flows.edit(caller, flow_id, 1, *[add(f"s{number}") for number in range(201)])
    with pytest.raises(Invalid) as refused:
        await flows.edit(caller, flow_id, 1, *[{"op": "set_note", "note": "x" * 1_000_000}], add("one"))
        await flows.edit(caller, flow_id, 2, add("two", "export const code = () => 1 // " + "x" * 100_000))
    assert refused.value.reason == "OPERATION_INVALID"
    assert "1 MiB" in refused.value.message


async def test_a_draft_with_very_many_faults_keeps_the_first(flows: Flows) -> None:
    caller = member()
    steps = [code(f"s{number}", "none", timeout="never") for number in range(400)]
    created = await flows.create(caller, document(*steps, code("q" * 300_000)))
    assert len(created.faults) == checks.MAX_FAULTS
    assert created.faults[0].step_id == "q" * 199 + "…"
    assert created.faults[1].step_id == "s0"
    assert created.faults[-1].reason == "TOO_MANY_FAULTS"
    assert max(len(fault.message) for fault in created.faults) <= checks.MAX_FAULT_CHARS
    assert len((await flows.draft(caller, created.flow.id)).faults) == checks.MAX_FAULTS


async def test_a_large_draft_is_checked_like_a_small_one(flows: Flows) -> None:
    """It is done in a thread, beside the calls of others."""
    caller = member()
    steps = [code(f"s{number}", f"export const code = () => {number} //{'x' * 100}") for number in range(600)]
    created = await flows.create(caller, document(*steps, code("bad", "export const code = (")))
    assert [(fault.step_id, fault.reason) for fault in created.faults] == [("bad", "SYNTAX_ERROR")]
    edited = await flows.edit(caller, created.flow.id, 1, {"op": "delete_step", "step_id": "bad"})
    assert not edited.faults


async def test_two_who_send_one_edit_at_once_apply_it_once(flows: Flows) -> None:
    caller = member()
    flow_id = (await flows.create(caller, document())).flow.id
    answers = await asyncio.gather(*(flows.edit(caller, flow_id, 1, add("one"), edit_id="same") for _ in range(8)))
    assert {(answer.revision, tuple(step_ids(answer))) for answer in answers} == {(2, ("one",))}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    plans=st.lists(
        st.lists(st.tuples(st.sampled_from(["add", "delete", "note"]), st.integers(1, 3), st.booleans()), max_size=6),
        min_size=2,
        max_size=3,
    )
)
async def test_no_edit_of_concurrent_editors_is_lost(flows: Flows, plans: list[list[tuple[str, int, bool]]]) -> None:
    """Each editor redoes what was stale and repeats what they are unsure of; every edit is then there exactly once."""
    caller = member()
    flow_id = (await flows.create(caller, document())).flow.id
    applied = 0

    async def editor(name: str, plan: list[tuple[str, int, bool]]) -> list[str]:
        nonlocal applied
        mine: list[str] = []
        seen = 1
        for number, (what, count, repeats) in enumerate(plan):
            ids = [f"{name}_{number}_{index}" for index in range(count)]
            ops: list[dict[str, object]] = [add(step_id) for step_id in ids]
            if what == "delete":
                ops = [{"op": "delete_step", "step_id": step_id} for step_id in mine]
            elif what == "note":
                ops = [{"op": "set_note", "id": step_id, "note": f"by {name}"} for step_id in mine]
            if not ops:
                continue
            while True:
                try:
                    draft = await flows.edit(caller, flow_id, seen, *ops, edit_id=f"{name}{number}")
                    break
                except Conflict as stale:
                    revision = stale.details["current_revision"]
                    assert isinstance(revision, int)
                    seen = revision
            applied += 1
            if repeats:
                draft = await flows.edit(caller, flow_id, seen, *ops, edit_id=f"{name}{number}")
            seen = draft.revision
            mine = [] if what == "delete" else mine + ids if what == "add" else mine
        return mine

    left = await asyncio.gather(*(editor(f"e{index}", plan) for index, plan in enumerate(plans)))
    draft = await flows.draft(caller, flow_id)
    assert sorted(step_ids(draft)) == sorted(step_id for mine in left for step_id in mine)
    assert draft.revision == 1 + applied


async def test_a_draft_comes_with_the_newest_sample_of_each_trigger(flows: Flows) -> None:
    caller = member()
    flow_id = (await flows.create(caller, document())).flow.id

    async def save(trigger_id: str, output: bytes, project_id: str | None = None) -> None:
        await flows.internal_drafts.SaveSample(
            draft_pb2.SaveSampleRequest(
                project_id=project_id or str(caller.project_id), flow_id=flow_id, trigger_id=trigger_id, output=output
            )
        )

    await save("hook", b'{"n":1}')
    flows.clock.advance(1)
    await save("hook", b'{"n":2}')
    flows.clock.advance(1)
    await save("other", b'{"u":"\\u0000"}')
    with acting_as(caller):
        samples = (await flows.drafts.GetDraft(draft_pb2.GetDraftRequest(flow_id=flow_id))).samples
    assert {sample.trigger_id: sample.output for sample in samples} == {"hook": b'{"n":2}', "other": b'{"u":"\\u0000"}'}
    with pytest.raises(NotFound):
        await save("hook", b"{}", project_id=new_text_id())


async def test_samples_are_bounded_in_number_and_in_what_one_answer_holds(flows: Flows) -> None:
    caller = member()
    flow_id = (await flows.create(caller, document())).flow.id
    for number in range(23):
        flows.clock.advance(1)
        output = json.dumps("x" * (3_000_000 if number > 19 else 10)).encode()
        await flows.internal_drafts.SaveSample(
            draft_pb2.SaveSampleRequest(
                project_id=str(caller.project_id), flow_id=flow_id, trigger_id=f"t{number}", output=output
            )
        )
    assert await flows.database.fetchval("SELECT count(*) FROM flows.sample WHERE flow_id = $1", flow_id) == 20
    with acting_as(caller):
        samples = (await flows.drafts.GetDraft(draft_pb2.GetDraftRequest(flow_id=flow_id))).samples
    assert [sample.trigger_id for sample in samples] == ["t22", "t21"]
