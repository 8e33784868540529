"""Who may call what: every RPC is checked, and nothing of another project can be seen or touched."""

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message
from millrace.flows.v1 import draft_pb2, draft_pb2_grpc, flow_pb2, flow_pb2_grpc, version_pb2, version_pb2_grpc
from millrace.options.v1 import options_pb2
from millrace.options.v1.options_pb2 import PERMISSION_FLOW_PUBLISH, PERMISSION_FLOW_READ, PERMISSION_FLOW_WRITE

from chassis.errors import Denied, NotFound, Unauthenticated
from chassis.identity import ANONYMOUS, Caller, acting_as
from chassis.ids import new_text_id
from tests.services.flows.running import EVERYTHING, Flows, document, member

pytestmark = pytest.mark.asyncio(loop_scope="module")

FLOW, VERSION = new_text_id(), new_text_id()
OF_PEOPLE: list[tuple[str, int, Callable[[str, str], Message]]] = [
    ("CreateFlow", PERMISSION_FLOW_WRITE, lambda flow, version: flow_pb2.CreateFlowRequest(name="x")),
    ("GetFlow", PERMISSION_FLOW_READ, lambda flow, version: flow_pb2.GetFlowRequest(flow_id=flow)),
    ("ListFlows", PERMISSION_FLOW_READ, lambda flow, version: flow_pb2.ListFlowsRequest()),
    ("DeleteFlow", PERMISSION_FLOW_WRITE, lambda flow, version: flow_pb2.DeleteFlowRequest(flow_id=flow)),
    ("EnableFlow", PERMISSION_FLOW_PUBLISH, lambda flow, version: flow_pb2.EnableFlowRequest(flow_id=flow)),
    ("DisableFlow", PERMISSION_FLOW_PUBLISH, lambda flow, version: flow_pb2.DisableFlowRequest(flow_id=flow)),
    (
        "ImportFlow",
        PERMISSION_FLOW_WRITE,
        lambda flow, version: flow_pb2.ImportFlowRequest(flow_id=flow, document=document()),
    ),
    ("ExportFlow", PERMISSION_FLOW_READ, lambda flow, version: flow_pb2.ExportFlowRequest(flow_id=flow)),
    ("GetDraft", PERMISSION_FLOW_READ, lambda flow, version: draft_pb2.GetDraftRequest(flow_id=flow)),
    (
        "EditDraft",
        PERMISSION_FLOW_WRITE,
        lambda flow, version: draft_pb2.EditDraftRequest(
            flow_id=flow, seen_revision=1, operations=[b'{"op":"set_note","note":"x"}'], edit_id="e"
        ),
    ),
    ("PublishDraft", PERMISSION_FLOW_PUBLISH, lambda flow, version: version_pb2.PublishDraftRequest(flow_id=flow)),
    ("ListVersions", PERMISSION_FLOW_READ, lambda flow, version: version_pb2.ListVersionsRequest(flow_id=flow)),
    (
        "GetVersion",
        PERMISSION_FLOW_READ,
        lambda flow, version: version_pb2.GetVersionRequest(flow_id=flow, version_id=version),
    ),
]
OF_SERVICES: list[tuple[str, Message]] = [
    ("SaveSample", draft_pb2.SaveSampleRequest(project_id=FLOW, flow_id=FLOW, trigger_id="x", output=b"{}")),
    ("BatchGetVersions", version_pb2.BatchGetVersionsRequest(version_ids=[VERSION])),
    ("ListLiveFlows", version_pb2.ListLiveFlowsRequest()),
    ("GetLiveFlow", version_pb2.GetLiveFlowRequest(flow_id=FLOW)),
    ("ReportApplied", version_pb2.ReportAppliedRequest(flow_id=FLOW, change_number=1, consumer="x")),
    ("FreezeDraft", version_pb2.FreezeDraftRequest(flow_id=FLOW)),
]


def rpc(flows: Flows, name: str) -> Any:
    stubs = (flows.flows, flows.drafts, flows.published)
    return next(getattr(stub, name) for stub in stubs if hasattr(stub, name))


async def test_every_rpc_is_tried_here() -> None:
    servicers = (
        flow_pb2_grpc.FlowServiceServicer,
        draft_pb2_grpc.DraftServiceServicer,
        version_pb2_grpc.VersionServiceServicer,
    )
    served = {name for servicer in servicers for name in vars(servicer) if name[0].isupper()}
    assert {name for name, *_ in [*OF_PEOPLE, *OF_SERVICES]} == served


@pytest.mark.parametrize(("name", "needed", "request_of"), OF_PEOPLE, ids=[name for name, *_ in OF_PEOPLE])
async def test_people_need_the_permission_in_a_project(
    flows: Flows, name: str, needed: int, request_of: Callable[[str, str], Message]
) -> None:
    call, request = rpc(flows, name), request_of(FLOW, VERSION)
    with acting_as(ANONYMOUS), pytest.raises(Unauthenticated):
        await call(request)
    project_id = new_text_id()
    with acting_as(Caller("user", new_text_id(), project_id, EVERYTHING - {needed})), pytest.raises(Denied) as refused:
        await call(request)
    word = options_pb2.Permission.Name(needed).removeprefix("PERMISSION_")  # type: ignore[arg-type]  # its number
    assert refused.value.details == {"permission": word}
    with acting_as(Caller("user", new_text_id(), None, EVERYTHING)), pytest.raises(Denied):
        await call(request)
    with acting_as(Caller("service", "webhooks")), pytest.raises(Denied):
        await call(request)


@pytest.mark.parametrize(("name", "request_"), OF_SERVICES, ids=[name for name, _ in OF_SERVICES])
async def test_people_cannot_call_what_is_for_services(flows: Flows, name: str, request_: Message) -> None:
    for caller in (ANONYMOUS, member()):
        with acting_as(caller), pytest.raises(Denied):
            await rpc(flows, name)(request_)


@pytest.mark.parametrize(
    ("name", "request_of"),
    [(name, request_of) for name, _, request_of in OF_PEOPLE if name not in ("CreateFlow", "ListFlows")],
)
async def test_flows_of_another_project_are_not_there(
    flows: Flows, name: str, request_of: Callable[[str, str], Message]
) -> None:
    owner, stranger = member(), member()
    flow_id = await flows.enabled(owner, document())
    before = await flows.flow(owner, flow_id)
    with acting_as(stranger), pytest.raises(NotFound) as refused:
        await rpc(flows, name)(request_of(flow_id, before.published_version_id))
    assert flow_id in refused.value.message
    assert await flows.flow(owner, flow_id) == before


async def test_a_version_belongs_to_its_flow(flows: Flows) -> None:
    caller = member()
    one, other = [await flows.enabled(caller, document()) for _ in range(2)]
    version_id = (await flows.flow(caller, one)).published_version_id
    for request in (
        version_pb2.GetVersionRequest(flow_id=other, version_id=version_id),
        version_pb2.GetVersionRequest(flow_id=one, version_id=new_text_id()),
    ):
        with acting_as(caller), pytest.raises(NotFound) as refused:
            await flows.published.GetVersion(request)
        assert refused.value.reason == "VERSION_NOT_FOUND"
    with acting_as(caller), pytest.raises(NotFound):
        await flows.flows.ExportFlow(flow_pb2.ExportFlowRequest(flow_id=other, version_id=version_id))
