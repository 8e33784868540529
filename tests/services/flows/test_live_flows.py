"""What consumers see of flows and tell about them."""

import asyncio

import pytest
from millrace.flows.v1 import version_pb2
from millrace.flows.v1.flow_pb2 import (
    FLOW_STATE_DISABLED,
    FLOW_STATE_ENABLE_FAILED,
    FLOW_STATE_ENABLED,
    FLOW_STATE_ENABLING,
)

from chassis.errors import Invalid, NotFound
from chassis.ids import new_text_id
from services.flows import versions
from tests.services.flows.running import Flows, document, member

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def all_live(flows: Flows, size: int) -> tuple[list[version_pb2.LiveFlow], int]:
    """Every page of the list, and how many there were."""
    found: list[version_pb2.LiveFlow] = []
    token, pages = "", 0
    while True:
        page = await flows.versions.ListLiveFlows(version_pb2.ListLiveFlowsRequest(page_size=size, page_token=token))
        found += page.flows
        pages += 1
        token = page.next_page_token
        if not token:
            return found, pages


async def test_the_list_holds_what_is_live_or_on_its_way_page_by_page(impatient: Flows) -> None:
    caller = member()
    before = {flow.flow_id for flow in (await all_live(impatient, 500))[0]}
    enabled, enabling, disabled, deleted, refused, kept, draft = [
        (await impatient.create(caller, document())).flow.id for _ in range(7)
    ]
    for flow_id in (enabled, enabling, disabled, deleted, refused, kept):
        await impatient.publish(caller, flow_id)
    for flow_id in (enabled, disabled, deleted, kept):
        await impatient.report(flow_id, 1)
    await impatient.report(refused, 1, "No.")
    await impatient.publish(caller, kept)
    await impatient.report(kept, 2, "Not the second.")
    await impatient.disable(caller, disabled)
    await impatient.delete(caller, deleted)

    found, pages = await all_live(impatient, 2)
    mine = {flow.flow_id: flow for flow in found if flow.flow_id not in before}
    assert list(mine) == sorted([enabled, enabling, kept])
    assert pages == (len(found) + 1) // 2
    assert all(flow.enabled and flow.document and flow.project_id == caller.project_id for flow in mine.values())
    for flow_id in (enabled, enabling, kept, disabled, deleted, refused):
        one = await impatient.live(flow_id)
        assert mine.get(flow_id, one) == one
        assert one.enabled == (flow_id in mine)
    assert (await impatient.live(kept)).version_id == (await impatient.flow(caller, kept)).published_version_id
    never = await impatient.live(draft)
    assert (never.enabled, never.version_id, never.document, never.change_number) == (False, "", b"", 0)


async def test_a_page_of_live_flows_ends_early_when_documents_are_large(
    impatient: Flows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "LIVE_PAGE_BYTES", 3_000)
    caller = member()
    for number in range(5):
        flow_id = (await impatient.create(caller, document(note=str(number) * (1_000 if number else 10_000)))).flow.id
        await impatient.publish(caller, flow_id)
    found, pages = await all_live(impatient, 500)
    assert pages >= 3
    assert len({flow.flow_id for flow in found}) == len(found)
    assert flow_id in {flow.flow_id for flow in found}


async def test_a_flow_that_never_was(impatient: Flows) -> None:
    with pytest.raises(NotFound) as refused:
        await impatient.live(new_text_id())
    assert refused.value.reason == "FLOW_NOT_FOUND"
    await impatient.report(new_text_id(), 1)


async def test_reports_that_are_late_early_or_repeated_change_nothing(impatient: Flows) -> None:
    caller = member()
    flow_id = (await impatient.create(caller, document())).flow.id
    await impatient.publish(caller, flow_id)
    await impatient.publish(caller, flow_id)
    await impatient.report(flow_id, 1)
    await impatient.report(flow_id, 1, "Late refusal.")
    await impatient.report(flow_id, 3, "Early refusal.")
    assert (await impatient.flow(caller, flow_id)).state == FLOW_STATE_ENABLING
    for _ in range(3):
        await impatient.report(flow_id, 2)
    flow = await impatient.flow(caller, flow_id)
    assert (flow.state, flow.published_version_number) == (FLOW_STATE_ENABLED, 2)
    await impatient.report(flow_id, 2, "A second replica cannot.")
    assert await impatient.flow(caller, flow_id) == flow
    await impatient.disable(caller, flow_id)
    await impatient.report(flow_id, 2)
    assert (await impatient.flow(caller, flow_id)).state == FLOW_STATE_DISABLED


async def test_only_those_who_count_make_a_flow_live_and_anyone_may_refuse(impatient: Flows) -> None:
    caller = member()
    flow_id = (await impatient.create(caller, document())).flow.id
    await impatient.publish(caller, flow_id)
    await impatient.report(flow_id, 1, consumer="somebody")
    assert (await impatient.flow(caller, flow_id)).state == FLOW_STATE_ENABLING
    await impatient.report(flow_id, 1, "The sender's API says \0 no.", consumer="executor")
    flow = await impatient.flow(caller, flow_id)
    assert (flow.state, flow.failure) == (FLOW_STATE_ENABLE_FAILED, "executor: The sender's API says  no.")
    await impatient.report(flow_id, 1)
    assert (await impatient.flow(caller, flow_id)).state == FLOW_STATE_ENABLE_FAILED


async def test_reports_at_once_conclude_once(impatient: Flows) -> None:
    caller = member()
    flow_id = (await impatient.create(caller, document())).flow.id
    await impatient.publish(caller, flow_id)
    await asyncio.gather(*(impatient.report(flow_id, 1, "No." if number % 2 else "") for number in range(10)))
    state = (await impatient.flow(caller, flow_id)).state
    change_number = (await impatient.live(flow_id)).change_number
    assert (state, change_number) in {(FLOW_STATE_ENABLED, 1), (FLOW_STATE_ENABLE_FAILED, 2)}


async def test_versions_are_read_by_the_batch_whatever_their_project(impatient: Flows) -> None:
    ids = []
    for _ in range(2):
        caller = member()
        flow_id = (await impatient.create(caller, document())).flow.id
        ids.append((await impatient.publish(caller, flow_id)).version.id)
    request = version_pb2.BatchGetVersionsRequest(version_ids=[*ids, new_text_id()])
    found = (await impatient.versions.BatchGetVersions(request)).versions
    assert {version.id for version in found} == set(ids)
    assert all(version.document and version.project_id for version in found)
    with pytest.raises(Invalid):
        await impatient.versions.BatchGetVersions(version_pb2.BatchGetVersionsRequest(version_ids=["x"]))


async def test_one_token_leads_through_the_list_of_live_flows_alone(impatient: Flows) -> None:
    with pytest.raises(Invalid):
        await impatient.versions.ListLiveFlows(version_pb2.ListLiveFlowsRequest(page_token="AAAA"))
