"""Flows, running for real on a database of its own, with the pieces and the jail that judge its drafts."""

# ruff: noqa: N802  # RPCs are called as in the .proto

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from millrace.executor.v1 import piece_pb2
from millrace.executor.v1.piece_pb2_grpc import add_PieceServiceServicer_to_server
from millrace.flows.v1 import draft_pb2, flow_pb2, version_pb2
from millrace.flows.v1.draft_pb2_grpc import DraftServiceStub
from millrace.flows.v1.flow_pb2_grpc import FlowServiceStub
from millrace.flows.v1.version_pb2_grpc import VersionServiceStub
from millrace.options.v1 import options_pb2

from chassis.clock import ManualClock
from chassis.database import Database
from chassis.errors import Unavailable
from chassis.identity import ANONYMOUS, Caller, acting_as, service_caller
from chassis.ids import new_text_id
from chassis.lifecycle import Chassis, Process, Running, Service, serving
from chassis.settings import ServiceSettings
from services.executor.driver.actions import Actions
from services.executor.driver.installed import INSTALLED
from services.executor.egress import Egress, EgressSettings
from services.executor.rpc.pieces import PieceRpc
from services.executor.sandbox import Sandbox, SandboxSettings
from services.flows.service import build
from services.flows.settings import FlowsSettings

EVERYTHING = frozenset(range(options_pb2.PERMISSION_SELF + 1, len(options_pb2.Permission.values())))
NAMES = ("auth", "executor", "files", "flows", "webhooks")
HOOK = {"id": "hook", "piece": "webhook", "event": "catch"}

Json = Any


def document(*steps: Mapping[str, Json], name: str = "Test", triggers: Json = (HOOK,), **rest: Json) -> bytes:
    """A flow document: a webhook trigger and these steps."""
    return json.dumps({"schema": 1, "name": name, "triggers": list(triggers), "steps": list(steps), **rest}).encode()


def code(step_id: str, source: str = "export const code = async () => 1", **rest: Json) -> dict[str, Json]:
    return {"id": step_id, "kind": "code", "source": source, **rest}


def operations(*ops: Mapping[str, Json]) -> list[bytes]:
    return [json.dumps(op).encode() for op in ops]


def member(project_id: str = "") -> Caller:
    """Somebody who may do everything in a project."""
    return Caller("user", new_text_id(), project_id or new_text_id(), EVERYTHING)


class TestClock(ManualClock):
    """Stands at a real time until it is turned; monotonic time goes on by itself."""

    __test__ = False

    def monotonic(self) -> float:
        return super().monotonic() + asyncio.get_running_loop().time()


@dataclass
class Flows:
    """A running flows and what a test needs to talk to it."""

    process: Process
    flows: Any
    drafts: Any
    versions: Any
    """As a service, for the RPCs that only services may call."""
    internal_drafts: Any
    published: Any
    """VersionService for people."""
    judge: "Judge"
    database: Database
    clock: TestClock

    async def create(self, caller: Caller, document: bytes = b"", name: str = "") -> flow_pb2.CreateFlowResponse:
        with acting_as(caller):
            request = flow_pb2.CreateFlowRequest(name=name or ("" if document else "New"), document=document)
            response: flow_pb2.CreateFlowResponse = await self.flows.CreateFlow(request)
        return response

    async def flow(self, caller: Caller, flow_id: str) -> flow_pb2.Flow:
        with acting_as(caller):
            found: flow_pb2.Flow = (await self.flows.GetFlow(flow_pb2.GetFlowRequest(flow_id=flow_id))).flow
        return found

    async def draft(self, caller: Caller, flow_id: str) -> draft_pb2.Draft:
        with acting_as(caller):
            found: draft_pb2.Draft = (await self.drafts.GetDraft(draft_pb2.GetDraftRequest(flow_id=flow_id))).draft
        return found

    async def edit(
        self, caller: Caller, flow_id: str, seen: int, *ops: Mapping[str, Json], edit_id: str = ""
    ) -> draft_pb2.Draft:
        request = draft_pb2.EditDraftRequest(
            flow_id=flow_id, seen_revision=seen, operations=operations(*ops), edit_id=edit_id
        )
        with acting_as(caller):
            edited: draft_pb2.Draft = (await self.drafts.EditDraft(request)).draft
        return edited

    async def publish(self, caller: Caller, flow_id: str, seen: int = 0) -> version_pb2.PublishDraftResponse:
        with acting_as(caller):
            request = version_pb2.PublishDraftRequest(flow_id=flow_id, seen_revision=seen)
            response: version_pb2.PublishDraftResponse = await self.published.PublishDraft(request)
        return response

    async def enable(self, caller: Caller, flow_id: str) -> flow_pb2.Flow:
        with acting_as(caller):
            flow: flow_pb2.Flow = (await self.flows.EnableFlow(flow_pb2.EnableFlowRequest(flow_id=flow_id))).flow
        return flow

    async def disable(self, caller: Caller, flow_id: str) -> flow_pb2.Flow:
        with acting_as(caller):
            flow: flow_pb2.Flow = (await self.flows.DisableFlow(flow_pb2.DisableFlowRequest(flow_id=flow_id))).flow
        return flow

    async def delete(self, caller: Caller, flow_id: str) -> None:
        with acting_as(caller):
            await self.flows.DeleteFlow(flow_pb2.DeleteFlowRequest(flow_id=flow_id))

    async def live(self, flow_id: str) -> version_pb2.LiveFlow:
        request = version_pb2.GetLiveFlowRequest(flow_id=flow_id)
        found: version_pb2.LiveFlow = (await self.versions.GetLiveFlow(request)).flow
        return found

    async def report(self, flow_id: str, change: int, failure: str = "", consumer: str = "webhooks") -> None:
        await self.versions.ReportApplied(
            version_pb2.ReportAppliedRequest(flow_id=flow_id, change_number=change, consumer=consumer, failure=failure)
        )

    @asynccontextmanager
    async def consumer(self, flow_id: str, failure: str = "") -> AsyncIterator[None]:
        """Somebody who reports every change of a flow while the block runs, once more each time than is needed."""

        async def reporting() -> None:
            while True:
                await asyncio.sleep(0.01)
                flow = await self.live(flow_id)
                if flow.change_number:
                    await self.report(flow_id, flow.change_number, failure)

        task = asyncio.create_task(reporting())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def enabled(self, caller: Caller, document: bytes) -> str:
        """A flow of this document, live. Return its id."""
        flow_id = (await self.create(caller, document)).flow.id
        async with self.consumer(flow_id):
            response = await self.publish(caller, flow_id)
        assert response.flow.state == flow_pb2.FLOW_STATE_ENABLED
        return flow_id


def common_settings(home: Path, url: str) -> dict[str, Any]:
    return {
        "home": home,
        "database_url": url,
        "drain_s": 1,
        "internal_key": uuid4().hex + uuid4().hex,
        "addresses": {name: f"unix:{home}/{name}.sock" for name in NAMES},
    }


class Judge(PieceRpc):
    """The part of executor that flows asks: the installed pieces and a real jail. Can be away."""

    away = False
    asked: list[str]

    def _ask(self, *what: str) -> None:
        self.asked += what
        if self.away:
            raise Unavailable("SERVICE_AWAY", "The executor is away.", retry_after_s=1)

    async def ListPieces(self, request: piece_pb2.ListPiecesRequest, context: Any) -> piece_pb2.ListPiecesResponse:
        self._ask("catalogue")
        return await super().ListPieces(request, context)

    async def CheckSources(
        self, request: piece_pb2.CheckSourcesRequest, context: Any
    ) -> piece_pb2.CheckSourcesResponse:
        self._ask(*(source.text for source in request.sources))
        return await super().CheckSources(request, context)


@asynccontextmanager
async def running_flows(
    home: Path, url: str, *others: Service[Any], common: Mapping[str, Any] | None = None, publish_wait_s: float = 5.0
) -> AsyncIterator[Flows]:
    """Flows on a database, with its judges, and whoever else a test needs."""
    common = common or common_settings(home, url)
    judges: list[Judge] = []

    async def build_judge(_settings: ServiceSettings, chassis: Chassis) -> Running:
        sandbox = await chassis.open(Sandbox(SandboxSettings(max_jails=1)))
        egress = await chassis.open(Egress(EgressSettings()))
        judge = Judge(Actions(INSTALLED, egress), sandbox)
        judge.asked = []
        judges.append(judge)
        return Running(servicers=[(add_PieceServiceServicer_to_server, judge)])

    clock = TestClock(1_731_705_121_500)
    services: list[Service[Any]] = [
        Service(build_judge, ServiceSettings(**common), "executor"),
        Service(build, FlowsSettings(**common, publish_wait_s=publish_wait_s)),
        *others,
    ]
    async with serving(services, clock=clock, listen=False) as process, Database(url) as database:
        people = process.channel("flows", ANONYMOUS)
        yield Flows(
            process=process,
            flows=FlowServiceStub(people),
            drafts=DraftServiceStub(people),
            versions=VersionServiceStub(process.channel("flows", service_caller("webhooks"))),
            internal_drafts=DraftServiceStub(process.channel("flows", service_caller("webhooks"))),
            published=VersionServiceStub(people),
            judge=judges[0],
            database=database,
            clock=clock,
        )
