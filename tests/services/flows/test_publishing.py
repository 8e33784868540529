"""How a version becomes live, and how a flow is switched on and off (architecture.md, The way of a publish)."""

import asyncio
import json

import pytest
from millrace.events.v1.events_pb2 import FlowChanged
from millrace.flows.v1 import flow_pb2, version_pb2
from millrace.flows.v1.flow_pb2 import (
    FLOW_STATE_DISABLED,
    FLOW_STATE_ENABLE_FAILED,
    FLOW_STATE_ENABLED,
    FLOW_STATE_ENABLING,
)

from chassis.errors import Conflict, Internal, NotFound, Unprocessable
from chassis.identity import Caller, acting_as
from tests.services.flows.running import Flows, code, document, member

pytestmark = pytest.mark.asyncio(loop_scope="module")

REQUEST = {
    "id": "ask",
    "kind": "action",
    "piece": "http",
    "action": "request",
    "input": {"method": "GET", "url": "https://x.example"},
}
_CHANGES = """FROM log.record r JOIN log.topic t ON t.id = r.topic_id WHERE t.name = 'flow-changes' AND r.key = $1"""


async def changes(flows: Flows, flow_id: str) -> list[int]:
    """The change numbers told on the topic about a flow, in order."""
    key = (await flows.database.fetchval("SELECT id FROM flows.flow WHERE id = $1", flow_id)).bytes
    rows = await flows.database.fetch(f'SELECT r.value {_CHANGES} ORDER BY r."offset"', key)
    told = [FlowChanged.FromString(row["value"]) for row in rows]
    assert {event.flow_id for event in told} <= {flow_id}
    return [event.change_number for event in told]


async def version(flows: Flows, caller: Caller, flow_id: str, version_id: str) -> version_pb2.Version:
    request = version_pb2.GetVersionRequest(flow_id=flow_id, version_id=version_id)
    with acting_as(caller):
        found: version_pb2.Version = (await flows.published.GetVersion(request)).version
    return found


async def test_a_published_version_is_live_when_the_call_returns(flows: Flows) -> None:
    caller = member()
    flow_id = (await flows.create(caller, document(REQUEST))).flow.id
    async with flows.consumer(flow_id):
        response = await flows.publish(caller, flow_id, seen=1)
    flow, published = response.flow, response.version
    assert (flow.state, flow.failure) == (FLOW_STATE_ENABLED, "")
    assert (flow.published_version_id, flow.published_version_number) == (published.id, 1)
    assert (published.flow_id, published.number, published.published_by) == (flow_id, 1, caller.id)
    assert await flows.flow(caller, flow_id) == flow
    live = await flows.live(flow_id)
    assert (live.enabled, live.version_id, live.project_id) == (True, published.id, caller.project_id)
    assert await changes(flows, flow_id) == [1]


async def test_a_version_pins_the_exact_version_of_every_piece(flows: Flows) -> None:
    caller = member()
    inside = {"id": "each", "kind": "loop", "items": "{{trigger.body.lines}}", "steps": [REQUEST]}
    flow_id = await flows.enabled(caller, document(inside))
    published = await version(flows, caller, flow_id, (await flows.flow(caller, flow_id)).published_version_id)
    read = json.loads(published.document)
    assert read["triggers"][0]["version"].count(".") == 2
    assert read["steps"][0]["steps"][0]["version"].count(".") == 2
    assert b"version" not in (await flows.draft(caller, flow_id)).document


async def test_a_draft_with_faults_is_refused_with_every_one_of_them(flows: Flows) -> None:
    caller = member()
    steps = [code("one", "export const code = ("), {**REQUEST, "piece": "nowhere"}, code("two", timeout="soon")]
    flow_id = (await flows.create(caller, document(*steps))).flow.id
    with pytest.raises(Unprocessable) as refused:
        await flows.publish(caller, flow_id)
    assert (refused.value.reason, refused.value.http) == ("DRAFT_INVALID", 422)
    assert {(fault.step_id, fault.field) for fault in refused.value.faults} == {
        ("one", "source"),
        ("ask", "piece"),
        ("two", "timeout"),
    }
    assert (await flows.flow(caller, flow_id)).state == FLOW_STATE_DISABLED
    assert await changes(flows, flow_id) == []


async def test_a_draft_that_moved_on_is_not_published_unseen(flows: Flows) -> None:
    caller = member()
    flow_id = (await flows.create(caller, document())).flow.id
    await flows.edit(caller, flow_id, 1, {"op": "set_note", "note": "x"})
    with pytest.raises(Conflict) as refused:
        await flows.publish(caller, flow_id, seen=1)
    assert refused.value.details == {"current_revision": 2}


async def test_what_is_published_is_what_was_checked(flows: Flows) -> None:
    """Edits come in while drafts are checked: a version never holds a draft that was not."""
    caller = member()
    flow_id = (await flows.create(caller, document())).flow.id

    async def edit() -> None:
        for number in range(10):
            await flows.edit(caller, flow_id, number + 1, {"op": "rename", "name": f"Edit {number}"})

    async with flows.consumer(flow_id):
        published, _ = await asyncio.gather(
            asyncio.gather(*(flows.publish(caller, flow_id) for _ in range(5))),
            edit(),
        )
    assert sorted(response.version.number for response in published) == [1, 2, 3, 4, 5]
    rows = await flows.database.fetch("SELECT id::text, revision FROM flows.version WHERE flow_id = $1", flow_id)
    for row in rows:
        name = json.loads((await version(flows, caller, flow_id, row["id"])).document)["name"]
        assert name == ("Test" if row["revision"] == 1 else f"Edit {row['revision'] - 2}")
    assert (await flows.flow(caller, flow_id)).published_version_number == 5


async def test_a_refused_version_leaves_the_one_before_it_live(flows: Flows) -> None:
    caller = member()
    flow_id = await flows.enabled(caller, document(name="First"))
    before = await flows.flow(caller, flow_id)
    async with flows.consumer(flow_id, failure="The secret `shop` is missing."):
        response = await flows.publish(caller, flow_id)
    assert response.flow.state == FLOW_STATE_ENABLE_FAILED
    assert response.flow.failure == "webhooks: The secret `shop` is missing."
    assert response.flow.published_version_id == before.published_version_id
    assert response.flow.published_version_number == 1
    assert response.version.number == 2
    live = await flows.live(flow_id)
    assert (live.enabled, live.version_id) == (True, before.published_version_id)
    assert await changes(flows, flow_id) == [1, 2, 3]


async def test_a_first_version_that_is_refused_leaves_nothing_live(flows: Flows) -> None:
    caller = member()
    flow_id = (await flows.create(caller, document())).flow.id
    async with flows.consumer(flow_id, failure="No."):
        flow = (await flows.publish(caller, flow_id)).flow
    assert (flow.state, flow.published_version_id, flow.published_version_number) == (FLOW_STATE_ENABLE_FAILED, "", 0)
    assert not (await flows.live(flow_id)).enabled


async def test_enabling_again_tries_the_version_published_last(flows: Flows) -> None:
    caller = member()
    flow_id = await flows.enabled(caller, document())
    async with flows.consumer(flow_id, failure="Not yet."):
        refused = (await flows.publish(caller, flow_id)).version
    async with flows.consumer(flow_id):
        flow = await flows.enable(caller, flow_id)
    assert (flow.state, flow.published_version_id, flow.failure) == (FLOW_STATE_ENABLED, refused.id, "")


async def test_a_call_answers_after_the_limit_that_it_is_under_way(impatient: Flows) -> None:
    caller = member()
    flow_id = (await impatient.create(caller, document())).flow.id
    response = await impatient.publish(caller, flow_id)
    assert response.flow.state == FLOW_STATE_ENABLING
    assert response.flow.published_version_id == ""
    live = await impatient.live(flow_id)
    assert (live.enabled, live.version_id) == (True, response.version.id)
    await impatient.report(flow_id, live.change_number)
    assert (await impatient.flow(caller, flow_id)).state == FLOW_STATE_ENABLED


async def test_a_flow_is_switched_off_and_on(flows: Flows) -> None:
    caller = member()
    flow_id = await flows.enabled(caller, document())
    version_id = (await flows.flow(caller, flow_id)).published_version_id
    async with flows.consumer(flow_id):
        off = await flows.disable(caller, flow_id)
        assert (off.state, off.published_version_id) == (FLOW_STATE_DISABLED, "")
        live = await flows.live(flow_id)
        assert (live.enabled, live.deleted, live.version_id) == (False, False, version_id)
        assert await flows.disable(caller, flow_id) == off
        on = await flows.enable(caller, flow_id)
        assert (on.state, on.published_version_id) == (FLOW_STATE_ENABLED, version_id)
        assert await flows.enable(caller, flow_id) == on
    assert await changes(flows, flow_id) == [1, 2, 3]


@pytest.mark.parametrize("end", ["disable", "delete"])
async def test_switching_off_returns_when_it_was_applied_and_no_sooner(flows: Flows, end: str) -> None:
    caller = member()
    flow_id = await flows.enabled(caller, document())
    waiting = asyncio.create_task(getattr(flows, end)(caller, flow_id))
    while (live := await flows.live(flow_id)).enabled:
        await asyncio.sleep(0)
    for _ in range(20):
        await flows.live(flow_id)
    assert not waiting.done()
    await flows.report(flow_id, live.change_number)
    await waiting


async def test_a_refusal_while_off_does_not_bring_the_old_version_back(flows: Flows) -> None:
    caller = member()
    flow_id = await flows.enabled(caller, document())
    async with flows.consumer(flow_id):
        await flows.disable(caller, flow_id)
    async with flows.consumer(flow_id, failure="No."):
        await flows.publish(caller, flow_id)
    assert not (await flows.live(flow_id)).enabled


async def test_what_was_never_published_cannot_be_switched_on(flows: Flows) -> None:
    caller = member()
    flow_id = (await flows.create(caller, document())).flow.id
    with pytest.raises(Conflict) as refused:
        await flows.enable(caller, flow_id)
    assert refused.value.reason == "FLOW_NOT_PUBLISHED"
    assert (await flows.disable(caller, flow_id)).state == FLOW_STATE_DISABLED


async def test_a_deleted_flow_is_gone_for_people_and_down_for_consumers(flows: Flows) -> None:
    caller = member()
    flow_id = await flows.enabled(caller, document())
    version_id = (await flows.flow(caller, flow_id)).published_version_id
    async with flows.consumer(flow_id):
        await flows.delete(caller, flow_id)
    for call in (flows.flow, flows.draft, flows.publish, flows.enable, flows.disable, flows.delete):
        with pytest.raises(NotFound):
            await call(caller, flow_id)
    live = await flows.live(flow_id)
    assert (live.deleted, live.enabled) == (True, False)
    assert await changes(flows, flow_id) == [1, 2]
    request = version_pb2.BatchGetVersionsRequest(version_ids=[version_id])
    (kept,) = (await flows.versions.BatchGetVersions(request)).versions
    assert kept.flow_id == flow_id, "its runs still need it"
    with pytest.raises(NotFound):
        await flows.versions.FreezeDraft(version_pb2.FreezeDraftRequest(flow_id=flow_id))


async def test_freezing_gives_one_version_a_revision(flows: Flows) -> None:
    caller = member()
    flow_id = (await flows.create(caller, document(REQUEST))).flow.id
    request = version_pb2.FreezeDraftRequest(flow_id=flow_id)
    answers = await asyncio.gather(*(flows.versions.FreezeDraft(request) for _ in range(5)))
    assert len({answer.version.id for answer in answers}) == 1
    frozen = answers[0].version
    assert (frozen.number, frozen.project_id) == (0, caller.project_id)
    assert json.loads(frozen.document)["steps"][0]["version"]
    await flows.edit(caller, flow_id, 1, {"op": "set_note", "note": "x"})
    assert (await flows.versions.FreezeDraft(request)).version.id != frozen.id
    assert (await flows.flow(caller, flow_id)).state == FLOW_STATE_DISABLED
    assert (await version(flows, caller, flow_id, frozen.id)) == frozen


async def test_a_draft_with_faults_is_not_frozen(flows: Flows) -> None:
    flow_id = (await flows.create(member(), document(code("one", "")))).flow.id
    with pytest.raises(Unprocessable) as refused:
        await flows.versions.FreezeDraft(version_pb2.FreezeDraftRequest(flow_id=flow_id))
    assert refused.value.faults[0].step_id == "one"


async def test_fact_and_event_are_one_commit(impatient: Flows) -> None:
    """I9: publish, disable and delete each write their rows and their event in one transaction."""
    caller = member()
    flow_id = (await impatient.create(caller, document())).flow.id
    key = (await impatient.database.fetchval("SELECT id FROM flows.flow WHERE id = $1", flow_id)).bytes
    facts = "SELECT xmin::text FROM flows.flow WHERE id = $1"

    async def writers() -> set[str]:
        event = f'SELECT r.xmin::text {_CHANGES} ORDER BY r."offset" DESC LIMIT 1'
        return {await impatient.database.fetchval(facts, flow_id), await impatient.database.fetchval(event, key)}

    await impatient.publish(caller, flow_id)
    version_xmin = await impatient.database.fetchval("SELECT xmin::text FROM flows.version WHERE flow_id = $1", flow_id)
    assert await writers() == {version_xmin}
    await impatient.disable(caller, flow_id)
    assert len(await writers()) == 1
    await impatient.enable(caller, flow_id)
    assert len(await writers()) == 1
    await impatient.report(flow_id, 3, "No.")
    assert len(await writers()) == 1
    await impatient.delete(caller, flow_id)
    assert len(await writers()) == 1
    assert await changes(impatient, flow_id) == [1, 2, 3, 4, 5]


async def test_an_event_that_cannot_be_written_undoes_the_fact(impatient: Flows) -> None:
    caller = member()
    flow_id = (await impatient.create(caller, document())).flow.id
    live_id = await _enabled_by_hand(impatient, caller)
    before = {one: await impatient.flow(caller, one) for one in (flow_id, live_id)}
    await impatient.database.execute(
        """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'full'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON log.record FOR EACH ROW EXECUTE FUNCTION refuse()"""
    )
    try:
        for call, target in (
            (impatient.publish, flow_id),
            (impatient.publish, live_id),
            (impatient.disable, live_id),
            (impatient.delete, live_id),
        ):
            with pytest.raises(Internal):
                await call(caller, target)
    finally:
        await impatient.database.execute("DROP FUNCTION refuse() CASCADE")
    assert {one: await impatient.flow(caller, one) for one in before} == before
    assert await impatient.database.fetchval("SELECT count(*) FROM flows.version WHERE flow_id = $1", flow_id) == 0
    assert await changes(impatient, flow_id) == []
    assert await changes(impatient, live_id) == [1]


async def _enabled_by_hand(flows: Flows, caller: Caller) -> str:
    flow_id = (await flows.create(caller, document())).flow.id
    await flows.publish(caller, flow_id)
    await flows.report(flow_id, 1)
    assert (await flows.flow(caller, flow_id)).state == flow_pb2.FLOW_STATE_ENABLED
    return flow_id
