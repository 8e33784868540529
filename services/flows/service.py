"""Flows: owns flow, version, edit, applied and sample; publishes `flow-changes`; asks the executor what it can run."""

from __future__ import annotations

from chassis.database import Database
from chassis.lifecycle import Chassis, Running
from chassis.log import open_log
from chassis.outbox import Outbox
from millrace.executor.v1.piece_pb2_grpc import PieceServiceAsyncStub, PieceServiceStub
from millrace.flows.v1.draft_pb2_grpc import add_DraftServiceServicer_to_server
from millrace.flows.v1.flow_pb2_grpc import add_FlowServiceServicer_to_server
from millrace.flows.v1.version_pb2_grpc import add_VersionServiceServicer_to_server
from services.flows.checks import Checks
from services.flows.drafts import Drafts
from services.flows.flows import Flows
from services.flows.publishing import Publishing
from services.flows.rpc.drafts import DraftRpc
from services.flows.rpc.flows import FlowRpc
from services.flows.rpc.versions import VersionRpc
from services.flows.settings import FlowsSettings
from services.flows.versions import Versions
