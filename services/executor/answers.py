"""Sends the answers of synchronous runs to the webhooks replica that holds the request, once they are durable (I5).

Decides: one standing stream for each replica, opened when it is first needed and closed when it was not needed for a while; what gathered while
the last message was in flight goes as the next. An answer that cannot be delivered is dropped: the replica asks for it (AwaitAnswers).
Leaves: when an answer may go to incarnation.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import grpc.aio
import structlog
from millrace.webhooks.v1 import ingest_pb2 as pb
from millrace.webhooks.v1.ingest_pb2_grpc import IngestServiceStub

from chassis.errors import MillraceError
from services.executor.active import ActiveRun
from services.executor.engine.commands import Answer

if TYPE_CHECKING:  # the generated module has this class for type checkers alone
    from millrace.webhooks.v1.ingest_pb2_grpc import IngestServiceAsyncStub

IDLE_S = 60.0
"""After so long without an answer a stream is closed, in seconds."""
MAX_WAITING = 10_000

log = structlog.get_logger()


class _Replica:
    """The stream to one replica of webhooks."""

    def __init__(self, stub: IngestServiceAsyncStub) -> None:
        self._stub = stub
        self._waiting: list[pb.RunAnswer] = []
        self._wake = asyncio.Event()

    def send(self, answer: pb.RunAnswer) -> None:
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(answer)
        self._wake.set()

    async def run(self) -> None:
        """Send until idle. What is lost with a broken stream is asked for by the replica."""
        await self._stub.DeliverAnswers(self._messages(), timeout=None)

    async def _messages(self) -> AsyncIterator[pb.DeliverAnswersRequest]:
        while True:
            if not self._waiting:
                self._wake.clear()
                try:
                    async with asyncio.timeout(IDLE_S):
                        await self._wake.wait()
                except TimeoutError:
                    return
            answers, self._waiting = self._waiting, []
            yield pb.DeliverAnswersRequest(answers=answers)


class Answers:
    """Answers to all replicas. `channel` opens a channel to an address."""

    def __init__(self, channel: Callable[[str], grpc.aio.Channel]) -> None:
        self._channel = channel
        self._replicas: dict[str, _Replica] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Answers:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def send(self, run: ActiveRun, answer: Answer) -> None:
        """Send the durable answer of a run to whoever holds its request."""
        address = run.identity.reply_to
        replica = self._replicas.get(address)
        if replica is None:
            replica = self._replicas[address] = _Replica(IngestServiceStub(self._channel(address)))
            task = asyncio.get_running_loop().create_task(self._serve(address, replica))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        headers = [pb.Header(name=name, value=value) for name, value in answer.headers.items()]
        replica.send(pb.RunAnswer(run_id=run.identity.run_id, status=answer.status, headers=headers, body=answer.body))

    async def _serve(self, address: str, replica: _Replica) -> None:
        try:
            await replica.run()
        except MillraceError as error:
            log.warning("answers_undelivered", address=address, reason=error.message)
        finally:
            del self._replicas[address]
