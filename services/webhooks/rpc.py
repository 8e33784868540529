"""The servicer of webhooks: messages in, domain calls, messages out.

Decides: that one stream's end leaves nobody unanswered who was taken in. Leaves: the rest to ingest.py and answers.py.
"""

import asyncio
from collections.abc import AsyncIterator

import grpc.aio
from millrace.webhooks.v1 import ingest_pb2 as pb
from millrace.webhooks.v1.ingest_pb2_grpc import IngestServiceServicer

from chassis.streams import until
from services.webhooks.answers import Answers
from services.webhooks.ingest import Ingest
from services.webhooks.replies import Replies, Reply

IngestContext = grpc.aio.ServicerContext[pb.IngestRequest, pb.IngestResponse]
DeliverContext = grpc.aio.ServicerContext[pb.DeliverAnswersRequest, pb.DeliverAnswersResponse]


class IngestRpc(IngestServiceServicer):
    """Serves `IngestService`."""

    def __init__(self, ingest: Ingest, answers: Answers, stopping: asyncio.Event) -> None:
        self._ingest = ingest
        self._answers = answers
        self._stopping = stopping

    async def Ingest(  # type: ignore[override]  # grpc.aio also takes a coroutine that writes; the stubs do not say so
        self, request_iterator: AsyncIterator[pb.IngestRequest], context: IngestContext
    ) -> None:
        replies = Replies()
        async with asyncio.TaskGroup() as aside:
            writing = aside.create_task(_write(replies, context))
            async for request in until(self._stopping, request_iterator):
                replies.expect(len(request.webhooks))
                for hook in request.webhooks:
                    self._ingest.take(hook, Reply(replies, hook.sequence), aside)
            await replies.all_sent()
            writing.cancel()

    async def DeliverAnswers(
        self, request_iterator: AsyncIterator[pb.DeliverAnswersRequest], context: DeliverContext
    ) -> pb.DeliverAnswersResponse:
        try:
            async for request in until(self._stopping, request_iterator):
                self._answers.deliver(request.answers)
        finally:
            self._answers.distrust()
        return pb.DeliverAnswersResponse()


async def _write(replies: Replies, context: IngestContext) -> None:
    while True:
        answers = await replies.gathered()
        await context.write(pb.IngestResponse(answers=answers))
        replies.sent(len(answers))
