"""PieceService: which pieces are installed, and whether code parses.

Decides: how values become messages. Leaves: the catalogue to driver/actions.py, parsing to sandbox/.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import grpc.aio
from millrace.executor.v1 import piece_pb2 as pb
from millrace.executor.v1.piece_pb2_grpc import PieceServiceServicer

from services.executor.driver.actions import Actions
from services.executor.sandbox import Sandbox, SourceKind

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_KINDS: dict[int, SourceKind] = {
    pb.SOURCE_KIND_EXPRESSION: "expression",
    pb.SOURCE_KIND_JAVASCRIPT: "javascript",
    pb.SOURCE_KIND_TYPESCRIPT: "typescript",
}


class PieceRpc(PieceServiceServicer):
    """Answers for the pieces and the jail of this executor."""

    def __init__(self, actions: Actions, sandbox: Sandbox) -> None:
        self._actions, self._sandbox = actions, sandbox

    async def ListPieces(self, request: pb.ListPiecesRequest, context: Context) -> pb.ListPiecesResponse:
        return pb.ListPiecesResponse(pieces=self._actions.catalogue())

    async def CheckSources(self, request: pb.CheckSourcesRequest, context: Context) -> pb.CheckSourcesResponse:
        problems = await self._sandbox.check([(_KINDS[source.kind], source.text) for source in request.sources])
        return pb.CheckSourcesResponse(
            checks=[
                pb.SourceCheck(message=problem.message, line=problem.line, column=problem.column)
                if problem
                else pb.SourceCheck()
                for problem in problems
            ]
        )
