"""Runs that ended are told to an OpenTelemetry collector, here a small real one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import grpc.aio
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as rpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from chassis.database import Database
from chassis.ids import new_id
from chassis.migrations import migrate
from chassis.telemetry import span_export
from services.executor.active import ActiveRun
from services.executor.postgres_store import PostgresStore
from services.executor.runs.run_store import RunStore
from services.executor.runs.traces import Traces
from services.executor.store import FlushBatch, RunEnd, RunIdentity, RunStatus, RunWrite
from tests.services.executor.engine.world import Driver, World, plan_of

PROJECT = "0197c1f0-0000-7000-8000-000000000001"
FLOW = "0197c1f0-0000-7000-8000-000000000002"
VERSION = "0197c1f0-0000-7000-8000-000000000003"
CODE = {"kind": "code", "language": "javascript", "source": ""}
SEND = {"kind": "action", "piece": "toy", "action": "effect"}
STEPS = [
    {"id": "first", **CODE},
    {"id": "each", "kind": "loop", "items": "{{trigger.list}}", "steps": [{"id": "send", **SEND}]},
]


class Collector(rpc.TraceServiceServicer):
    """Keeps what arrives, by the name of the span."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()

    async def Export(  # noqa: N802  # gRPC gives the name
        self, request: pb.ExportTraceServiceRequest, context: object
    ) -> pb.ExportTraceServiceResponse:
        for of_resource in request.resource_spans:
            self.services |= {a.value.string_value for a in of_resource.resource.attributes if a.key == "service.name"}
            for of_scope in of_resource.scope_spans:
                self.spans += of_scope.spans
        return pb.ExportTraceServiceResponse()

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
async def collector() -> AsyncIterator[tuple[Collector, str]]:
    server = grpc.aio.server()
    collector = Collector()
    rpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]  # generated without types
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield collector, f"http://127.0.0.1:{port}"
    await server.stop(None)


@pytest.fixture
async def executor_database(database_url: str) -> AsyncIterator[Database]:
    await migrate(database_url, "executor")
    async with Database(database_url, "executor") as database:
        yield database


def ended_run(world: World | None = None, *, took_ms: int = 50, chunks: int = 1) -> tuple[ActiveRun, Driver]:
    """A run as it stands when its last flush has committed, which was its `chunks`-th."""
    driver = Driver(plan_of(STEPS), world or World()).run()
    identity = RunIdentity(new_id().bytes, PROJECT, FLOW, VERSION, "hook")
    run = ActiveRun(identity, driver.plan, driver.machine, 1_000)
    run.end = RunEnd(RunStatus[driver.machine.status.upper()], 1_000 + took_ms, driver.machine.steps_finished)
    run.gone, run.next_chunk = True, chunks
    entries = driver.entries()
    run.flushed = entries if chunks == 1 else entries[-1:]
    return run, driver


async def told(
    runs: Sequence[ActiveRun], database: Database, endpoint: str, *, share: float = 0.0, slow_s: float = 10.0
) -> None:
    """Tell of these runs and end, which sends what waits."""
    export = span_export(endpoint, "executor")
    assert export is not None
    async with Traces(export, RunStore(database), slow_s=slow_s, share=share) as traces:
        others: list[ActiveRun] = []
        traces.beside(others.extend)(runs)
        assert others == list(runs)


async def test_a_failed_run_is_a_trace_under_its_own_id(
    collector: tuple[Collector, str], executor_database: Database
) -> None:
    received, endpoint = collector
    run, _ = ended_run(World(outcome=lambda ref: "fatal" if ref.indices == (1,) else "ok"))

    await told([run], executor_database, endpoint)

    (root,) = received.named("run hook")
    assert root.trace_id == run.identity.run_id
    assert root.status.code == Status.STATUS_CODE_ERROR
    assert received.services == {"millrace-executor"}
    assert {span.trace_id for span in received.spans} == {run.identity.run_id}
    (loop,) = received.named("each")
    assert loop.parent_span_id == root.span_id
    assert {span.parent_span_id for span in received.named("first")} == {root.span_id}
    sends = received.named("send")
    assert {span.parent_span_id for span in sends} == {loop.span_id}
    assert [span.status.code == Status.STATUS_CODE_ERROR for span in sends] == [False, True]


async def test_a_run_of_several_flushes_is_read_from_its_journal(
    collector: tuple[Collector, str], executor_database: Database
) -> None:
    received, endpoint = collector
    run, driver = ended_run(chunks=2)
    store = PostgresStore(executor_database)
    epoch = await store.begin_incarnation("tester", sole=True)
    first, *rest = driver.chunks
    begun = RunWrite(run.identity, True, 0, first, RunStatus.RUNNING, 1_000)
    more = [RunWrite(run.identity, False, n, chunk, RunStatus.RUNNING, 1_000) for n, chunk in enumerate(rest, 1)]
    assert more
    await store.flush(FlushBatch(epoch, 1, runs=[begun]))
    await store.flush(FlushBatch(epoch, 2, runs=more))

    await told([run], executor_database, endpoint, share=1.0)

    assert len(received.named("send")) == 3
    (root,) = received.named("run hook")
    assert root.status.code == Status.STATUS_CODE_OK


async def test_of_quick_runs_that_succeed_a_share_is_traced(
    collector: tuple[Collector, str], executor_database: Database
) -> None:
    received, endpoint = collector
    quick, slow = ended_run()[0], ended_run(took_ms=11_000)[0]

    await told([quick, slow], executor_database, endpoint, share=0.0)

    assert {span.trace_id for span in received.spans} == {slow.identity.run_id}
