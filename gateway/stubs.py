"""The services as the gateway calls them: one stub each, over whatever channel leads there.

Decides: which services it calls. Leaves: the channels to chassis/lifecycle.py.
"""

from collections.abc import Callable
from dataclasses import dataclass

import grpc.aio
from millrace.auth.v1 import account_pb2_grpc, connection_pb2_grpc
from millrace.executor.v1 import piece_pb2_grpc, run_pb2_grpc
from millrace.flows.v1 import draft_pb2_grpc, flow_pb2_grpc, version_pb2_grpc


@dataclass(frozen=True)
class Stubs:
    """Every RPC service that a route calls."""

    accounts: "account_pb2_grpc.AccountServiceAsyncStub"
    connections: "connection_pb2_grpc.ConnectionServiceAsyncStub"
    flows: "flow_pb2_grpc.FlowServiceAsyncStub"
    drafts: "draft_pb2_grpc.DraftServiceAsyncStub"
    versions: "version_pb2_grpc.VersionServiceAsyncStub"
    runs: "run_pb2_grpc.RunServiceAsyncStub"
    pieces: "piece_pb2_grpc.PieceServiceAsyncStub"


def stubs_over(channel: Callable[[str], grpc.aio.Channel]) -> Stubs:
    """Stubs over the channels that `channel` gives for a service's name."""
    auth, flows, executor = channel("auth"), channel("flows"), channel("executor")
    return Stubs(
        accounts=account_pb2_grpc.AccountServiceStub(auth),
        connections=connection_pb2_grpc.ConnectionServiceStub(auth),
        flows=flow_pb2_grpc.FlowServiceStub(flows),
        drafts=draft_pb2_grpc.DraftServiceStub(flows),
        versions=version_pb2_grpc.VersionServiceStub(flows),
        runs=run_pb2_grpc.RunServiceStub(executor),
        pieces=piece_pb2_grpc.PieceServiceStub(executor),
    )
