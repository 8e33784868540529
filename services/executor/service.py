"""The executor: owns runs, journals, positions and incarnations.

Consumes `executions`; alone runs pieces and users' code (in jails).

Decides: what is opened, and who gets what. Leaves: how the loops work together to incarnation.py.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from millrace.auth.v1.connection_pb2_grpc import ConnectionServiceStub
from millrace.executor.v1.piece_pb2_grpc import add_PieceServiceServicer_to_server
from millrace.executor.v1.run_pb2_grpc import add_RunServiceServicer_to_server
from millrace.files.v1.file_pb2_grpc import FileServiceStub
from millrace.flows.v1.version_pb2_grpc import VersionServiceStub
from millrace_sdk import ActionFailed

from chassis.backings import open_cache, open_database, open_topics
from chassis.errors import Unavailable
from chassis.lifecycle import Chassis, Running
from chassis.telemetry import span_export
from flowlang.expressions import ExpressionError
from flowlang.model import Flow
from services.executor.answers import Answers
from services.executor.driver.actions import Actions
from services.executor.driver.connections import Connections
from services.executor.driver.installed import INSTALLED
from services.executor.egress import Egress, EgressSettings
from services.executor.engine.plan import Plan, PlanError, compile_plan
from services.executor.incarnation import Incarnation
from services.executor.payload_files import FilesPayloads
from services.executor.plans import Plans
from services.executor.postgres_store import PostgresStore
from services.executor.rpc.pieces import PieceRpc
from services.executor.rpc.runs import RunRpc
from services.executor.runs.progress import Progress
from services.executor.runs.run_store import RunStore
from services.executor.runs.runs import Runs
from services.executor.sandbox import Sandbox
from services.executor.settings import ExecutorSettings
from services.executor.surroundings import surroundings_at

if TYPE_CHECKING:
    from services.executor.runs.traces import Traces

PARTITIONS_S = 6 * 3600.0


async def build(settings: ExecutorSettings, chassis: Chassis) -> Running:
    """Open the database, the log, the way out and the jails, and begin an incarnation."""
    database = await open_database(chassis)
    log = await open_topics(chassis, database)
    cache = await open_cache(chassis)
    egress = await chassis.open(Egress(EgressSettings(allow=settings.egress_allow, public_url=settings.public_url)))
    sandbox = await chassis.open(Sandbox(settings.sandbox))
    answers = await chassis.open(Answers(partial(chassis.channel_to, "webhooks")))
    store = PostgresStore(database)
    await store.prepare_partitions(settings.weeks_ahead)
    actions = Actions(INSTALLED, egress)
    progress = Progress(cache, chassis.clock)
    run_store = RunStore(database)
    traces = await _traces(settings, chassis, run_store)
    plans = Plans(VersionServiceStub(chassis.channel("flows")), partial(_compile, actions))
    incarnation = Incarnation(
        epoch=await store.begin_incarnation(settings.executor_name, sole=settings.sole_executor),
        store=store,
        log_=log,
        clock=chassis.clock,
        plans=plans,
        sandbox=sandbox,
        actions=actions,
        connections=Connections(ConnectionServiceStub(chassis.channel("auth")), chassis.clock),
        files=FilesPayloads(FileServiceStub(chassis.channel("files"))),
        answer=answers.send,
        told=traces.beside(progress.told) if traces else progress.told,
        surroundings=surroundings_at(settings.public_url),
        max_active=settings.max_active_runs,
    )
    runs = Runs(run_store, plans, chassis.clock)
    return Running(
        servicers=[
            (add_RunServiceServicer_to_server, RunRpc(runs, progress)),
            (add_PieceServiceServicer_to_server, PieceRpc(actions, sandbox)),
        ],
        loops=[
            partial(incarnation.run_until_stopped, settings.drain_s / 2),
            progress.run,
            partial(_prepare_partitions, store, settings.weeks_ahead),
            *([traces.run] if traces else []),
        ],
    )


async def _traces(settings: ExecutorSettings, chassis: Chassis, store: RunStore) -> Traces | None:
    """Traces of runs, where somebody collects them."""
    export = span_export(settings.otlp_endpoint, chassis.name)
    if export is None:
        return None
    from services.executor.runs.traces import Traces  # brings OpenTelemetry, 20 MB that nobody else needs

    return await chassis.open(Traces(export, store, slow_s=settings.trace_slow_s, share=settings.trace_share))


def _compile(actions: Actions, flow: Flow, version_id: str) -> Plan:
    try:
        return compile_plan(flow, version_id, lambda step: actions.effect(step.piece, step.action, step.input))
    except (ActionFailed, ExpressionError) as error:
        raise PlanError(str(error)) from error


async def _prepare_partitions(store: PostgresStore, weeks_ahead: int) -> None:
    """Keep the partitions of the coming weeks ready; an installation may run for months."""
    while True:
        await asyncio.sleep(PARTITIONS_S)
        with suppress(Unavailable):  # weeks are left; the next look will do
            await store.prepare_partitions(weeks_ahead)
