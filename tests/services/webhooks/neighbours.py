"""Small real servicers in the places of flows, auth and executor; sending webhooks, and seeing what came of it."""

# ruff: noqa: N802  # RPCs are called as in the .proto

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
from millrace.auth.v1 import connection_pb2
from millrace.auth.v1.connection_pb2_grpc import ConnectionServiceServicer, add_ConnectionServiceServicer_to_server
from millrace.events.v1.events_pb2 import ExecutionBatch, ExecutionRequest, FlowChanged
from millrace.executor.v1 import run_pb2
from millrace.executor.v1.run_pb2_grpc import RunServiceServicer, add_RunServiceServicer_to_server
from millrace.files.v1 import file_pb2
from millrace.files.v1.file_pb2_grpc import FileServiceStub
from millrace.flows.v1 import draft_pb2, version_pb2
from millrace.flows.v1.draft_pb2_grpc import DraftServiceServicer, add_DraftServiceServicer_to_server
from millrace.flows.v1.version_pb2_grpc import VersionServiceServicer, add_VersionServiceServicer_to_server
from millrace.webhooks.v1 import ingest_pb2 as pb
from millrace.webhooks.v1.ingest_pb2_grpc import IngestServiceStub

from chassis.client import ServiceChannel, open_channel
from chassis.clock import ManualClock
from chassis.database import Database
from chassis.documents import unpack
from chassis.errors import NotFound, Unavailable
from chassis.identity import Signer, service_caller
from chassis.ids import new_text_id
from chassis.lifecycle import Chassis, Running, Service, serving
from chassis.log import Log, OutRecord, open_log
from chassis.settings import ServiceSettings
from gateway.hooks import Calls, ingest_calls
from services.files.service import build as build_files
from services.files.settings import FilesSettings
from services.webhooks.service import build
from services.webhooks.settings import WebhooksSettings

PROJECT = "0197c1f0-0000-7000-8000-000000000001"
NAMES = ("auth", "executor", "files", "flows", "webhooks")
_RECORDS = "FROM log.record r JOIN log.topic t ON t.id = r.topic_id WHERE t.name = 'executions'"
PUBLISHED = f'SELECT r.value {_RECORDS} ORDER BY r."offset"'
COMMITS = f"SELECT count(DISTINCT r.xmin::text) {_RECORDS}"


def document(*triggers: Mapping[str, Any]) -> bytes:
    """A flow document with these webhook triggers (id `hook` unless given)."""
    return json.dumps(
        {
            "schema": 1,
            "name": "Test",
            "triggers": [
                {"id": "hook", "piece": "webhook", "event": "catch", **trigger} for trigger in triggers or ({},)
            ],
            "steps": [],
        }
    ).encode()


class Flows(VersionServiceServicer, DraftServiceServicer):
    """flows, as far as webhooks knows it."""

    def __init__(self) -> None:
        self.live: dict[str, version_pb2.LiveFlow] = {}
        self.drafts: dict[str, bytes] = {}
        self.samples: list[draft_pb2.SaveSampleRequest] = []
        self.reports: list[version_pb2.ReportAppliedRequest] = []
        self.calls: Counter[str] = Counter()
        self.away = False

    def _called(self, name: str) -> None:
        self.calls[name] += 1
        if self.away:
            raise Unavailable("DATABASE_AWAY", "The database is away.", retry_after_s=1)

    async def ListLiveFlows(self, request: Any, context: Any) -> version_pb2.ListLiveFlowsResponse:
        self._called("ListLiveFlows")
        return version_pb2.ListLiveFlowsResponse(flows=[flow for flow in self.live.values() if flow.enabled])

    async def GetLiveFlow(self, request: Any, context: Any) -> version_pb2.GetLiveFlowResponse:
        self._called("GetLiveFlow")
        if request.flow_id not in self.live:
            raise NotFound("FLOW_NOT_FOUND", "No such flow.")
        return version_pb2.GetLiveFlowResponse(flow=self.live[request.flow_id])

    async def ReportApplied(self, request: Any, context: Any) -> version_pb2.ReportAppliedResponse:
        self._called("ReportApplied")
        self.reports.append(request)
        return version_pb2.ReportAppliedResponse()

    async def FreezeDraft(self, request: Any, context: Any) -> version_pb2.FreezeDraftResponse:
        self._called("FreezeDraft")
        if request.flow_id not in self.drafts:
            raise NotFound("FLOW_NOT_FOUND", "No such flow.")
        version = version_pb2.Version(
            id=new_text_id(), flow_id=request.flow_id, project_id=PROJECT, document=self.drafts[request.flow_id]
        )
        return version_pb2.FreezeDraftResponse(version=version)

    async def SaveSample(self, request: Any, context: Any) -> draft_pb2.SaveSampleResponse:
        self._called("SaveSample")
        self.samples.append(request)
        return draft_pb2.SaveSampleResponse()


class Auth(ConnectionServiceServicer):
    """auth, as far as webhooks knows it."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}
        self.calls = 0
        self.away = False

    async def ResolveConnections(self, request: Any, context: Any) -> connection_pb2.ResolveConnectionsResponse:
        self.calls += 1
        if self.away:
            raise Unavailable("DATABASE_AWAY", "The database is away.", retry_after_s=1)
        return connection_pb2.ResolveConnectionsResponse(
            connections=[
                connection_pb2.ResolvedConnection(name=name, value=msgspec.json.encode({"secret": self.secrets[name]}))
                for name in request.names
                if name in self.secrets
            ]
        )


class Executor(RunServiceServicer):
    """executor's answers, as far as webhooks knows them: those in `durable` can be asked for."""

    def __init__(self) -> None:
        self.durable: dict[bytes, tuple[int, bytes]] = {}
        self.asked: Counter[bytes] = Counter()

    async def AwaitAnswers(self, request: Any, context: Any) -> run_pb2.AwaitAnswersResponse:
        self.asked.update(request.run_ids)
        found = {run_id: self.durable[run_id] for run_id in request.run_ids if run_id in self.durable}
        if not found:
            await asyncio.sleep(request.timeout_ms / 1000)
        return run_pb2.AwaitAnswersResponse(
            answers=[
                run_pb2.FoundAnswer(run_id=run_id, status=status, headers=["x-flow", "asked"], body=body)
                for run_id, (status, body) in found.items()
            ]
        )


@dataclass
class Installation:
    """webhooks and its neighbours, running."""

    flows: Flows
    auth: Auth
    executor: Executor
    calls: Calls
    database: Database
    log: Log
    clock: ManualClock
    webhooks: Any
    files: Any
    messages: Counter[str] = field(default_factory=Counter)

    def flow(self, *triggers: Mapping[str, Any], **changed: Any) -> str:
        """Make a live flow without telling webhooks: it is looked up at its first event."""
        flow_id = new_text_id()
        self.flows.live[flow_id] = version_pb2.LiveFlow(
            **{
                "flow_id": flow_id,
                "project_id": PROJECT,
                "change_number": 1,
                "enabled": True,
                "version_id": new_text_id(),
                "document": document(*triggers),
                **changed,
            }
        )
        return flow_id

    async def change(self, flow_id: str, **changed: Any) -> None:
        """Change a flow and tell so on the topic, as flows does; return when webhooks reported it."""
        flow = self.flows.live[flow_id]
        flow.change_number += 1
        for name, value in changed.items():
            setattr(flow, name, value)
        record = FlowChanged(flow_id=flow_id, project_id=PROJECT, change_number=flow.change_number)
        await self.log.publish("flow-changes", [OutRecord(flow_id.encode(), record.SerializeToString())])
        await until(
            lambda: any(r.flow_id == flow_id and r.change_number == flow.change_number for r in self.flows.reports)
        )

    def post(self, flow_id: str, body: bytes = b"{}", mode: int = pb.INGEST_MODE_ASYNC, **parts: Any) -> Any:
        """Send one webhook as the gateway does; await the answer."""
        headers = {"content-type": "application/json", **parts.pop("headers", {})}
        return self.calls.call(
            pb.InboundWebhook(
                flow_id=flow_id,
                mode=mode,  # type: ignore[arg-type]  # a number of the enum
                method=parts.pop("method", "POST"),
                headers=[pb.Header(name=name, value=value) for name, value in headers.items() if value is not None],
                body=body,
                **parts,
            )
        )

    async def published(self, flow_id: str) -> list[ExecutionRequest]:
        """The events of a flow that are in the log, in order."""
        batches = [ExecutionBatch.FromString(row["value"]) for row in await self.database.fetch(PUBLISHED)]
        return [request for batch in batches for request in batch.requests if request.flow_id == flow_id]

    async def output(self, flow_id: str) -> Any:
        """The trigger output of the only event of a flow."""
        (request,) = await self.published(flow_id)
        return json.loads(unpack(request.payload))

    async def deliver(
        self, run_id: bytes, status: int = 200, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer a run over the stream, as executors do."""

        async def requests() -> AsyncIterator[pb.DeliverAnswersRequest]:
            pairs = [pb.Header(name=name, value=value) for name, value in (headers or {}).items()]
            yield pb.DeliverAnswersRequest(
                answers=[pb.RunAnswer(run_id=run_id, status=status, headers=pairs, body=body)]
            )

        await self.webhooks.DeliverAnswers(requests())

    async def download(self, file_id: str) -> bytes:
        request = file_pb2.DownloadFileRequest(project_id=PROJECT, file_id=file_id)
        return b"".join([part.content async for part in self.files.DownloadFile(request)])


async def until(true: Callable[[], Any], within_s: float = 10.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(within_s):
        while not true():
            await asyncio.sleep(0.01)


def problem(answer: pb.OutboundAnswer) -> dict[str, Any]:
    """The problem document of a refusal."""
    assert header(answer, "content-type") == "application/problem+json"
    found: dict[str, Any] = json.loads(answer.body)
    assert found["status"] == answer.status
    return found


def header(answer: pb.OutboundAnswer, name: str) -> str | None:
    return next((one.value for one in answer.headers if one.name == name), None)


class TestClock(ManualClock):
    """Stands at a real time; monotonic time goes on by itself."""

    __test__ = False

    def monotonic(self) -> float:
        return super().monotonic() + asyncio.get_running_loop().time()


@asynccontextmanager
async def installation(
    home: Path, database_url: str, *, kafka: str = "", sockets: bool = False, **set_: Any
) -> AsyncIterator[Installation]:
    """Run webhooks and files for real on this database, with the neighbours around them.

    `sockets`: webhooks is met over its Unix socket, as from another process.
    """
    common: dict[str, Any] = {"home": home, "database_url": database_url, "drain_s": 1, "kafka_bootstrap": kafka}
    common |= {
        "internal_key": uuid4().hex + uuid4().hex,
        "addresses": {name: f"unix:{home}/{name}.sock" for name in NAMES},
    }
    clock = TestClock(1_731_705_121_500)
    flows, auth, executor = Flows(), Auth(), Executor()  # type: ignore[abstract]  # they answer what webhooks asks

    async def build_flows(_settings: ServiceSettings, _chassis: Chassis) -> Running:
        return Running(
            servicers=[
                (add_VersionServiceServicer_to_server, flows),
                (add_DraftServiceServicer_to_server, flows),
            ]
        )

    async def build_auth(_settings: ServiceSettings, _chassis: Chassis) -> Running:
        return Running(servicers=[(add_ConnectionServiceServicer_to_server, auth)])

    async def build_executor(_settings: ServiceSettings, _chassis: Chassis) -> Running:
        return Running(servicers=[(add_RunServiceServicer_to_server, executor)])

    services: list[Service[Any]] = [
        Service(build_flows, ServiceSettings(**common), "flows"),
        Service(build_auth, ServiceSettings(**common), "auth"),
        Service(build_executor, ServiceSettings(**common), "executor"),
        Service(build_files, FilesSettings(**common), "files"),
        Service(build, WebhooksSettings(**common, **set_), "webhooks"),
    ]
    async with serving(services, clock=clock, listen=sockets) as process, Database(database_url) as database:
        gateway = service_caller("gateway")
        channel = _over_socket(ServiceSettings(**common)) if sockets else process.channel("webhooks", gateway)
        stub = IngestServiceStub(channel)
        calls = ingest_calls(stub)
        messages: Counter[str] = Counter()
        make_request = calls._make_request

        def counted(gathered: Any) -> Any:
            messages["ingest"] += 1
            return make_request(gathered)

        calls._make_request = counted
        log = open_log(ServiceSettings(**common), database)
        files = FileServiceStub(process.channel("files", service_caller("executor")))
        async with channel, calls, log:
            yield Installation(flows, auth, executor, calls, database, log, clock, stub, files, messages)


def _over_socket(settings: ServiceSettings) -> ServiceChannel:
    return ServiceChannel(
        open_channel(settings.address_of("webhooks"), settings),
        service="webhooks",
        caller=service_caller("gateway"),
        signer=Signer(settings.resolved_internal_key()),
        call_timeout_s=5,
    )
