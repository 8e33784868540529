"""The executor, running for real: its database, log, jails, pieces, files; flows, auth, webhooks as small servicers.

A test publishes executions as webhooks does and reads what came of them through the executor's own RPCs.
"""

# ruff: noqa: N802  # RPCs are called as in the .proto

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
from millrace.auth.v1 import connection_pb2
from millrace.auth.v1.connection_pb2_grpc import ConnectionServiceServicer, add_ConnectionServiceServicer_to_server
from millrace.events.v1.events_pb2 import ExecutionBatch, ExecutionRequest
from millrace.executor.v1 import run_pb2 as pb
from millrace.executor.v1.run_pb2_grpc import RunServiceStub
from millrace.files.v1 import file_pb2
from millrace.files.v1.file_pb2_grpc import FileServiceStub
from millrace.flows.v1 import version_pb2
from millrace.flows.v1.version_pb2_grpc import VersionServiceServicer, add_VersionServiceServicer_to_server
from millrace.options.v1 import options_pb2
from millrace.webhooks.v1 import ingest_pb2
from millrace.webhooks.v1.ingest_pb2_grpc import IngestServiceServicer, add_IngestServiceServicer_to_server

from chassis.cache import Cache, open_cache
from chassis.database import Database
from chassis.documents import pack
from chassis.errors import Unavailable
from chassis.identity import Caller, acting_as, service_caller
from chassis.ids import new_id, new_text_id
from chassis.lifecycle import Chassis, Process, Running, Service, serving
from chassis.log import Log, OutRecord, open_log
from chassis.settings import ServiceSettings
from services.executor.sandbox import SandboxSettings
from services.executor.service import build
from services.executor.settings import ExecutorSettings
from services.files.service import build as build_files
from services.files.settings import FilesSettings

Step = dict[str, Any]
NAMES = ("auth", "executor", "files", "flows", "webhooks")
READER = frozenset({options_pb2.PERMISSION_RUN_READ})
ENDED = (
    pb.RUN_STATUS_SUCCEEDED,
    pb.RUN_STATUS_FAILED,
    pb.RUN_STATUS_CANCELED,
    pb.RUN_STATUS_TIMED_OUT,
    pb.RUN_STATUS_MEMORY_EXCEEDED,
    pb.RUN_STATUS_LOG_TOO_LARGE,
    pb.RUN_STATUS_INTERNAL_ERROR,
)
WITHIN_S = 60.0


class Flows(VersionServiceServicer):
    """flows, as far as the executor knows it."""

    def __init__(self) -> None:
        self.versions: dict[str, version_pb2.Version] = {}
        self.calls: Counter[str] = Counter()
        self.away = False

    async def BatchGetVersions(self, request: Any, context: Any) -> version_pb2.BatchGetVersionsResponse:
        self.calls["BatchGetVersions"] += 1
        if self.away:
            raise Unavailable("DATABASE_AWAY", "The database is away.", retry_after_s=1)
        found = [self.versions[version_id] for version_id in request.version_ids if version_id in self.versions]
        return version_pb2.BatchGetVersionsResponse(versions=found)


class Auth(ConnectionServiceServicer):
    """auth, as far as the executor knows it: secret texts by project and name."""

    def __init__(self) -> None:
        self.secrets: dict[tuple[str, str], str] = {}
        self.away = False

    async def ResolveConnections(self, request: Any, context: Any) -> connection_pb2.ResolveConnectionsResponse:
        if self.away:
            raise Unavailable("DATABASE_AWAY", "The database is away.", retry_after_s=1)
        return connection_pb2.ResolveConnectionsResponse(
            connections=[
                connection_pb2.ResolvedConnection(
                    name=name, value=msgspec.json.encode({"secret": secret}), secrets=[secret]
                )
                for name in request.names
                if (secret := self.secrets.get((request.project_id, name))) is not None
            ]
        )


class Webhooks(IngestServiceServicer):
    """A webhooks replica, as far as the executor knows it."""

    def __init__(self) -> None:
        self.answers: dict[bytes, ingest_pb2.RunAnswer] = {}

    async def DeliverAnswers(self, requests: Any, context: Any) -> ingest_pb2.DeliverAnswersResponse:
        async for request in requests:
            self.answers |= {answer.run_id: answer for answer in request.answers}
        return ingest_pb2.DeliverAnswersResponse()


@dataclass
class Neighbours:
    """Who lives on when the executor is started anew."""

    home: Path
    database_url: str
    flows: Flows = field(default_factory=Flows)
    auth: Auth = field(default_factory=Auth)
    webhooks: Webhooks = field(default_factory=Webhooks)
    key: str = field(default_factory=lambda: uuid4().hex + uuid4().hex)

    def common(self) -> dict[str, Any]:
        addresses = {name: f"unix:{self.home}/{name}.sock" for name in NAMES}
        return {
            "home": self.home,
            "database_url": self.database_url,
            "drain_s": 1,
            "internal_key": self.key,
            "addresses": addresses,
        }


@dataclass(frozen=True)
class Flow:
    """A published flow."""

    project_id: str
    flow_id: str
    version_id: str


@dataclass
class Executor:
    """A running executor and what a test needs to talk to it."""

    neighbours: Neighbours
    process: Process
    database: Database
    log: Log
    cache: Cache
    """The very one that the executor tells progress through."""

    def flow(self, *steps: Step, project_id: str = "") -> Flow:
        """A published flow of these steps."""
        made = Flow(project_id or new_text_id(), new_text_id(), new_text_id())
        hook = {"id": "hook", "piece": "webhook", "event": "catch"}
        document = msgspec.json.encode({"schema": 1, "name": "Test", "triggers": [hook], "steps": steps})
        self.neighbours.flows.versions[made.version_id] = version_pb2.Version(
            id=made.version_id, flow_id=made.flow_id, project_id=made.project_id, document=document
        )
        return made

    def secret(self, flow: Flow, name: str, secret: str) -> None:
        self.neighbours.auth.secrets[flow.project_id, name] = secret

    def request(self, flow: Flow, payload: object = None, **parts: Any) -> ExecutionRequest:
        """An event of a flow, accepted just now."""
        packed = b"" if "payload_file_id" in parts else pack(msgspec.json.encode({"body": payload}))
        given = {"run_id": new_id().bytes, "payload": packed} | parts
        return ExecutionRequest(
            project_id=flow.project_id, flow_id=flow.flow_id, version_id=flow.version_id, trigger_id="hook", **given
        )

    async def publish(self, *requests: ExecutionRequest) -> None:
        """Put events into the log, one record each."""
        records = [
            OutRecord(request.run_id, ExecutionBatch(requests=[request]).SerializeToString()) for request in requests
        ]
        await self.log.publish("executions", records)

    async def start(self, flow: Flow, payload: object = None, **parts: Any) -> str:
        """Publish one event; the id of its run."""
        request = self.request(flow, payload, **parts)
        await self.publish(request)
        return str(UUID(bytes=request.run_id))

    async def run(self, flow: Flow, payload: object = None, **parts: Any) -> pb.GetRunResponse:
        """Publish one event and wait until its run has ended."""
        return await self.ended(flow, await self.start(flow, payload, **parts))

    async def ended(self, flow: Flow, run_id: str) -> pb.GetRunResponse:
        """A run of a flow, once it has ended."""
        return await self.reaches(flow, run_id, lambda found: found.run.status in ENDED)

    async def reaches(self, flow: Flow, run_id: str, so: Callable[[pb.GetRunResponse], bool]) -> pb.GetRunResponse:
        """A run of a flow, once something is so."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                if await self.known(run_id) and so(found := await self.get(flow.project_id, run_id)):
                    return found
                await asyncio.sleep(0.02)

    async def known(self, run_id: str) -> bool:
        statement = "SELECT 1 FROM executor.journal WHERE run_id = $1 LIMIT 1"
        return await self.database.fetchval(statement, UUID(run_id)) is not None

    def runs(self, project_id: str) -> Any:
        """RunService for somebody who may read this project's runs."""
        return RunServiceStub(self.process.channel("executor", member(project_id)))

    @property
    def internal(self) -> Any:
        """RunService for services."""
        return RunServiceStub(self.process.channel("executor", service_caller("webhooks")))

    async def get(self, project_id: str, run_id: str) -> pb.GetRunResponse:
        with acting_as(member(project_id)):
            found: pb.GetRunResponse = await self.runs(project_id).GetRun(pb.GetRunRequest(run_id=run_id))
        return found

    async def page(self, project_id: str, **asked: Any) -> pb.ListRunsResponse:
        with acting_as(member(project_id)):
            found: pb.ListRunsResponse = await self.runs(project_id).ListRuns(pb.ListRunsRequest(**asked))
        return found

    async def journal(self, run_id: str) -> bytes:
        """The journal of a run, every byte of it, as the database holds it."""
        statement = "SELECT entries FROM executor.journal WHERE run_id = $1 ORDER BY chunk_no"
        return b"".join(row["entries"] for row in await self.database.fetch(statement, UUID(run_id)))

    async def dead_letters(self, at_least: int) -> list[tuple[bytes, bytes]]:
        """Key and value of every dead letter, once there are so many."""
        statement = """SELECT r.key, r.value FROM log.record r JOIN log.topic t ON t.id = r.topic_id
            WHERE t.name = 'executions-dead' ORDER BY r."offset\""""
        async with asyncio.timeout(WITHIN_S):
            while len(rows := await self.database.fetch(statement)) < at_least:
                await asyncio.sleep(0.02)
        return [(row["key"], row["value"]) for row in rows]

    async def upload(self, project_id: str, content: bytes) -> str:
        """Keep a payload in a file, as webhooks does; its id."""

        async def parts() -> AsyncIterator[file_pb2.UploadFileRequest]:
            yield file_pb2.UploadFileRequest(header=file_pb2.FileHeader(project_id=project_id, name="payload"))
            yield file_pb2.UploadFileRequest(content=content)

        stub = FileServiceStub(self.process.channel("files", service_caller("webhooks")))
        answer: file_pb2.UploadFileResponse = await stub.UploadFile(parts())
        return answer.file.id


def code(step_id: str, function: str, **rest: Any) -> Step:
    """A code step; its function without `export const code = async`."""
    return {"id": step_id, "kind": "code", "source": f"export const code = async {function}", **rest}


def action(step_id: str, name: str, input: Mapping[str, Any], **rest: Any) -> Step:
    """A step that calls `piece.action`."""
    piece, _, called = name.partition(".")
    return {"id": step_id, "kind": "action", "piece": piece, "action": called, "input": input, **rest}


def said(step_id: str, **fields: str) -> Step:
    """A step that gives an object of these templates."""
    return action(step_id, "data.set", {"fields": fields})


def member(project_id: str) -> Caller:
    """Somebody who may read the runs of a project."""
    return Caller("user", new_text_id(), project_id, READER)


def steps(found: pb.GetRunResponse) -> dict[str, pb.StepRun]:
    """The steps of a run by their id; of a loop's, the last item."""
    return {step.step_id: step for step in found.steps}


def output(found: pb.GetRunResponse, step_id: str) -> Any:
    """What a step gave."""
    return json.loads(steps(found)[step_id].output)


@asynccontextmanager
async def running_executor(neighbours: Neighbours, **set_: Any) -> AsyncIterator[Executor]:
    """Run the executor and files for real beside these neighbours."""
    common = neighbours.common()

    def beside(*servicers: tuple[Any, object]) -> Callable[[ServiceSettings, Chassis], Any]:
        async def build_it(_settings: ServiceSettings, _chassis: Chassis) -> Running:
            return Running(servicers=servicers)

        return build_it

    given: Mapping[str, Any] = {
        "sole_executor": True,
        "egress_allow": ["127.0.0.0/8"],
        "sandbox": SandboxSettings(max_jails=2),
    }
    plain = ServiceSettings(**common)
    services: Sequence[Service[Any]] = [
        Service(beside((add_VersionServiceServicer_to_server, neighbours.flows)), plain, "flows"),
        Service(beside((add_ConnectionServiceServicer_to_server, neighbours.auth)), plain, "auth"),
        Service(beside((add_IngestServiceServicer_to_server, neighbours.webhooks)), plain, "webhooks"),
        Service(build_files, FilesSettings(**common), "files"),
        Service(build, ExecutorSettings(**common, **{**given, **set_}), "executor"),
    ]
    async with (
        serving(services) as process,
        Database(neighbours.database_url) as database,
        open_log(plain, database) as log,
    ):
        yield Executor(neighbours, process, database, log, open_cache(plain))
