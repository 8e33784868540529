"""The executor as the gateway's tests need it: runs that a test puts in, progress that a test tells."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import msgspec
from millrace.executor.v1 import piece_pb2, piece_pb2_grpc, run_pb2, run_pb2_grpc

from chassis.errors import NotFound, Unavailable
from chassis.identity import require_project

Context = grpc.aio.ServicerContext[Any, Any]


class ExecutorDouble(run_pb2_grpc.RunServiceServicer, piece_pb2_grpc.PieceServiceServicer):
    """Runs that a test puts in; progress that a test tells."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, run_pb2.GetRunResponse]] = {}
        self.watchers: list[tuple[str, asyncio.Queue[run_pb2.WatchRunsResponse | None]]] = []
        self.asked: list[run_pb2.ListRunsRequest] = []
        self.away = False

    async def ListRuns(self, request: run_pb2.ListRunsRequest, context: Context) -> run_pb2.ListRunsResponse:
        self.asked.append(request)
        if self.away:
            raise Unavailable("DATABASE_AWAY", "The database cannot be reached.", retry_after_s=1.2)
        found = [answer.run for answer in self.runs.get(require_project(), {}).values()]
        return run_pb2.ListRunsResponse(runs=found)

    async def GetRun(self, request: run_pb2.GetRunRequest, context: Context) -> run_pb2.GetRunResponse:
        found = self.runs.get(require_project(), {}).get(request.run_id)
        if found is None:
            raise NotFound("RUN_NOT_FOUND", f"There is no run {request.run_id} in this project.")
        return found

    async def WatchRuns(
        self, request: run_pb2.WatchRunsRequest, context: Context
    ) -> AsyncIterator[run_pb2.WatchRunsResponse]:
        queue: asyncio.Queue[run_pb2.WatchRunsResponse | None] = asyncio.Queue()
        watcher = (require_project(), queue)
        self.watchers.append(watcher)
        try:
            while (answer := await queue.get()) is not None:
                yield answer
        finally:
            self.watchers.remove(watcher)

    async def AwaitAnswers(
        self, request: run_pb2.AwaitAnswersRequest, context: Context
    ) -> run_pb2.AwaitAnswersResponse:
        return run_pb2.AwaitAnswersResponse()

    async def ListPieces(self, request: piece_pb2.ListPiecesRequest, context: Context) -> piece_pb2.ListPiecesResponse:
        webhook = {"name": "catch", "title": "Received", "summary": "A request came.", "input_schema": {}}
        pieces = [
            {"name": "http", "version": "1.0.0", "title": "HTTP", "summary": "Calls.", "triggers": [], "actions": []},
            {"name": "webhook", "version": "1", "title": "W", "summary": "", "triggers": [webhook], "actions": []},
        ]
        return piece_pb2.ListPiecesResponse(pieces=[msgspec.json.encode(piece) for piece in pieces])

    async def CheckSources(
        self, request: piece_pb2.CheckSourcesRequest, context: Context
    ) -> piece_pb2.CheckSourcesResponse:
        return piece_pb2.CheckSourcesResponse(checks=[piece_pb2.SourceCheck() for _ in request.sources])
