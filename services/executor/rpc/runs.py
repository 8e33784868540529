"""RunService: lists, one run, progress, missed answers.

Decides: how values become messages. Leaves: reading to runs/runs.py, watching to runs/progress.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, TypeAlias
from uuid import UUID

import grpc.aio
from millrace.executor.v1 import run_pb2 as pb
from millrace.executor.v1.run_pb2_grpc import RunServiceServicer

from chassis.identity import require_project
from services.executor.engine.commands import Answer
from services.executor.http_answer import http_answer
from services.executor.runs.messages import run_message, step_message
from services.executor.runs.progress import Progress
from services.executor.runs.runs import Runs

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class RunRpc(RunServiceServicer):
    """Reads runs."""

    def __init__(self, runs: Runs, progress: Progress) -> None:
        self._runs, self._progress = runs, progress

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        rows, following = await self._runs.page(
            require_project(),
            asked=request.page_size,
            token=request.page_token,
            flow_id=request.flow_id,
            statuses=request.statuses,
        )
        return pb.ListRunsResponse(runs=[run_message(row) for row in rows], next_page_token=following)

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        detail = await self._runs.get(require_project(), UUID(request.run_id))
        return pb.GetRunResponse(
            run=run_message(detail.run),
            trigger_output=detail.trigger_output,
            steps=[step_message(step, with_documents=True) for step in detail.steps],
            steps_truncated=detail.truncated,
        )

    async def WatchRuns(self, request: pb.WatchRunsRequest, context: Context) -> AsyncIterator[pb.WatchRunsResponse]:
        async for response in self._progress.watch(require_project(), request.flow_id, request.run_id):
            yield response

    async def AwaitAnswers(self, request: pb.AwaitAnswersRequest, context: Context) -> pb.AwaitAnswersResponse:
        found = await self._runs.answers(request.run_ids, request.timeout_ms)
        return pb.AwaitAnswersResponse(answers=[_found(run_id, answer) for run_id, answer in found.items()])


def _found(run_id: bytes, answer: Answer) -> pb.FoundAnswer:
    status, headers, body = http_answer(answer)
    return pb.FoundAnswer(
        run_id=run_id, status=status, headers=[text for pair in headers.items() for text in pair], body=body
    )
