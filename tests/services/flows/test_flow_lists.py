"""Lists of flows and versions: pages by key, each token bound to its list."""

from uuid import UUID

import pytest
from millrace.flows.v1 import flow_pb2, version_pb2

from chassis.errors import Invalid, NotFound
from chassis.identity import Caller, acting_as
from tests.services.flows.running import Flows, document, member

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def listed(
    flows: Flows, caller: Caller, size: int = 0, token: str = "", name: str = ""
) -> flow_pb2.ListFlowsResponse:
    request = flow_pb2.ListFlowsRequest(page_size=size, page_token=token, name_contains=name)
    with acting_as(caller):
        response: flow_pb2.ListFlowsResponse = await flows.flows.ListFlows(request)
    return response


async def versions(
    flows: Flows, caller: Caller, flow_id: str, size: int = 0, token: str = ""
) -> version_pb2.ListVersionsResponse:
    request = version_pb2.ListVersionsRequest(flow_id=flow_id, page_size=size, page_token=token)
    with acting_as(caller):
        response: version_pb2.ListVersionsResponse = await flows.published.ListVersions(request)
    return response


async def test_flows_come_newest_first_page_by_page(flows: Flows) -> None:
    caller, other = member(), member()
    ids = [(await flows.create(caller, name=f"Flow {number}")).flow.id for number in range(5)]
    await flows.create(other, name="Of somebody else")
    seen, token, pages = [], "", 0
    while True:
        page = await listed(flows, caller, 2, token)
        seen += [flow.id for flow in page.flows]
        pages += 1
        token = page.next_page_token
        if not token:
            break
    assert (seen, pages) == (ids[::-1], 3)


async def test_a_list_shows_what_one_flow_shows(flows: Flows) -> None:
    caller = member()
    flow_id = await flows.enabled(caller, document())
    (shown,) = (await listed(flows, caller)).flows
    assert shown == await flows.flow(caller, flow_id)


async def test_a_full_last_page_has_no_token(flows: Flows) -> None:
    caller = member()
    for _ in range(2):
        await flows.create(caller, name="x")
    assert (await listed(flows, caller, 2)).next_page_token == ""
    assert (await listed(flows, member(), 2)) == flow_pb2.ListFlowsResponse()


async def test_the_filter_looks_into_names_whatever_their_case(flows: Flows) -> None:
    caller = member()
    for name in ("Invoices", "Paid invoices to Berlin", "Orders", "100% of_it"):
        await flows.create(caller, name=name)
    assert [flow.name for flow in (await listed(flows, caller, name="INVOICE")).flows] == [
        "Paid invoices to Berlin",
        "Invoices",
    ]
    assert [flow.name for flow in (await listed(flows, caller, name="0% of_")).flows] == ["100% of_it"]
    assert not (await listed(flows, caller, name="%")).next_page_token
    assert not (await listed(flows, caller, name="nul\0")).flows


async def test_a_token_is_good_for_its_project_and_filter_alone(flows: Flows) -> None:
    caller = member()
    for _ in range(3):
        await flows.create(caller, name="x")
    token = (await listed(flows, caller, 1)).next_page_token
    filtered = (await listed(flows, caller, 1, name="x")).next_page_token
    for who, wrong, name in (
        (member(), token, ""),
        (caller, token, "x"),
        (caller, filtered, ""),
        (caller, "nonsense", ""),
        (caller, token[:-2], ""),
    ):
        with pytest.raises(Invalid) as refused:
            await listed(flows, who, 1, wrong, name)
        assert refused.value.reason == "PAGE_TOKEN_INVALID"


@pytest.mark.parametrize("size", [-1, 201])
async def test_the_size_of_a_page_is_bounded(flows: Flows, size: int) -> None:
    with pytest.raises(Invalid):
        await listed(flows, member(), size)


async def test_a_deleted_flow_is_in_no_list(flows: Flows) -> None:
    caller = member()
    kept, gone = [(await flows.create(caller, name="x")).flow.id for _ in range(2)]
    await flows.delete(caller, gone)
    assert [flow.id for flow in (await listed(flows, caller)).flows] == [kept]


async def test_versions_come_newest_first_page_by_page(flows: Flows) -> None:
    caller = member()
    flow_id = (await flows.create(caller, document())).flow.id
    async with flows.consumer(flow_id):
        for _ in range(3):
            await flows.publish(caller, flow_id)
    first = await versions(flows, caller, flow_id, 2)
    assert [version.number for version in first.versions] == [3, 2]
    assert {(version.document, version.published_by) for version in first.versions} == {(b"", caller.id)}
    second = await versions(flows, caller, flow_id, 2, first.next_page_token)
    assert [version.number for version in second.versions] == [1]
    assert second.next_page_token == ""
    with pytest.raises(Invalid):
        await versions(flows, caller, (await flows.create(caller, name="y")).flow.id, 2, first.next_page_token)


async def test_frozen_drafts_are_in_no_list_of_versions(flows: Flows) -> None:
    caller = member()
    flow_id = (await flows.create(caller, document())).flow.id
    await flows.versions.FreezeDraft(version_pb2.FreezeDraftRequest(flow_id=flow_id))
    assert not (await versions(flows, caller, flow_id)).versions


async def test_the_versions_of_nothing(flows: Flows) -> None:
    with pytest.raises(NotFound) as refused:
        await versions(flows, member(), str(UUID(int=1)))
    assert refused.value.reason == "FLOW_NOT_FOUND"


async def test_a_page_of_flows_is_a_range_of_its_index(flows: Flows) -> None:
    """The most frequent statement of all: no sort, no look at other projects' flows."""
    from services.flows import flow_store

    async with flows.database.transaction() as connection:
        await connection.execute("SET LOCAL enable_seqscan = off")
        plan = await connection.fetch(f"EXPLAIN {flow_store.LIST}", member().project_id, flow_store.NEWEST, 51)
    text = "\n".join(row[0] for row in plan)
    assert "flow_by_project" in text
    assert "Sort" not in text
