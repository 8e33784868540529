"""Sends the answers of synchronous runs to the webhooks replica that holds the request, once they are durable (I5).

Decides: one standing stream for each replica, opened when it is first needed. An answer that cannot be delivered is
lost here: the replica asks for it (AwaitAnswers).
Leaves: when an answer may go to incarnation.py, gathering and reconnecting to chassis/streams.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc.aio
from millrace.webhooks.v1 import ingest_pb2 as pb
from millrace.webhooks.v1.ingest_pb2_grpc import IngestServiceStub

from chassis.streams import BatchedSends
from services.executor.active import ActiveRun
from services.executor.engine.commands import Answer
from services.executor.http_answer import http_answer

MAX_REPLICAS = 64
"""Streams kept; replicas come and go under new addresses, and the one connected to first leaves first."""

Sends = BatchedSends[pb.RunAnswer, pb.DeliverAnswersRequest, pb.DeliverAnswersResponse]


class Answers:
    """Answers to all replicas. `channel_to` opens a channel to an address, for the caller to close."""

    def __init__(self, channel_to: Callable[[str], grpc.aio.Channel]) -> None:
        self._channel_to = channel_to
        self._streams: dict[str, Sends] = {}
        self._standing: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Answers:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._standing.values():
            task.cancel()
        await asyncio.gather(*self._standing.values(), return_exceptions=True)

    def send(self, run: ActiveRun, answer: Answer) -> None:
        """Send the durable answer of a run to whoever holds its request."""
        address = run.identity.reply_to
        stream = self._streams.get(address) or self._connect(address)
        status, headers, body = http_answer(answer)
        pairs = [pb.Header(name=name, value=value) for name, value in headers.items()]
        stream.send(pb.RunAnswer(run_id=run.identity.run_id, status=status, headers=pairs, body=body))

    def _connect(self, address: str) -> Sends:
        if len(self._streams) >= MAX_REPLICAS:
            oldest = next(iter(self._streams))
            del self._streams[oldest]
            self._standing.pop(oldest).cancel()
        channel = self._channel_to(address)
        stream: Sends = BatchedSends(
            IngestServiceStub(channel).DeliverAnswers,
            lambda answers: pb.DeliverAnswersRequest(answers=answers),
            name=f"answers to {address}",
            size_of=lambda answer: len(answer.body),
        )
        self._streams[address] = stream
        self._standing[address] = asyncio.get_running_loop().create_task(_stand(stream, channel))
        return stream


async def _stand(stream: Sends, channel: grpc.aio.Channel) -> None:
    async with channel, stream:
        await asyncio.Event().wait()
