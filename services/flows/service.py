"""Flows: owns flow, version, applied, edit and sample; publishes `flow-changes`; asks the executor what it can run.

Decides: what is opened, and who gets what. Leaves: each of them to its own module.
"""

from __future__ import annotations

from millrace.executor.v1.piece_pb2_grpc import PieceServiceStub
from millrace.flows.v1.draft_pb2_grpc import add_DraftServiceServicer_to_server
from millrace.flows.v1.flow_pb2_grpc import add_FlowServiceServicer_to_server
from millrace.flows.v1.version_pb2_grpc import add_VersionServiceServicer_to_server

from chassis.backings import open_database, open_topics
from chassis.lifecycle import Chassis, Running
from chassis.outbox import Outbox
from services.flows.checks import Checks
from services.flows.drafts import Drafts
from services.flows.flows import Flows
from services.flows.publishing import Publishing
from services.flows.rpc.drafts import DraftRpc
from services.flows.rpc.flows import FlowRpc
from services.flows.rpc.versions import VersionRpc
from services.flows.settings import FlowsSettings
from services.flows.settling import Settling
from services.flows.versions import Versions


async def build(settings: FlowsSettings, chassis: Chassis) -> Running:
    """Open the database and the log, and wire the domain to its servicers."""
    database = await open_database(chassis)
    log = await open_topics(chassis, database)
    outbox = await chassis.open(Outbox(database, log, chassis.name))
    checks = Checks(PieceServiceStub(chassis.channel("executor")), chassis.clock)
    drafts = Drafts(database, checks, chassis.clock)
    flows = Flows(database, checks, drafts, chassis.clock)
    settling = Settling(database, chassis.clock, settings.publish_wait_s)
    publishing = Publishing(database, outbox, checks, settling, chassis.clock)
    return Running(
        servicers=[
            (add_FlowServiceServicer_to_server, FlowRpc(flows, publishing)),
            (add_DraftServiceServicer_to_server, DraftRpc(drafts)),
            (add_VersionServiceServicer_to_server, VersionRpc(Versions(database), publishing)),
        ],
        loops=[outbox.relay],
    )
