"""Where the answer of one inbound webhook goes: back on the stream that it came from.

Decides: answers leave in whatever has gathered since the last message; answers for a stream that ended are dropped (the
gateway told its callers 503 when it broke).
Leaves: what is answered to everyone else.
"""

import asyncio
from typing import NamedTuple

from millrace.webhooks.v1 import ingest_pb2 as pb

from chassis.errors import MillraceError
from chassis.streams import MAX_BATCH_BYTES
from services.webhooks.refusals import to_answer

RUN_ID_HEADER = "x-millrace-run-id"


class Replies:
    """The answers of one ingest stream that wait to be sent."""

    def __init__(self) -> None:
        self._waiting: list[pb.OutboundAnswer] = []
        self._filled = asyncio.Event()
        self._owed = 0
        self._none_owed = asyncio.Event()

    def expect(self, count: int) -> None:
        """That many more answers will be put."""
        self._owed += count

    def sent(self, count: int) -> None:
        """That many left."""
        self._owed -= count
        if self._owed == 0:
            self._none_owed.set()

    async def all_sent(self) -> None:
        """Wait until nothing is owed any more."""
        while self._owed:
            self._none_owed.clear()
            await self._none_owed.wait()

    def put(self, answer: pb.OutboundAnswer) -> None:
        """Add an answer; it leaves with the next message."""
        self._waiting.append(answer)
        self._filled.set()

    async def gathered(self) -> list[pb.OutboundAnswer]:
        """Wait for at least one answer, then return what there is, as much as fits into a message."""
        await self._filled.wait()
        count, size = 0, 0
        for answer in self._waiting:
            size += len(answer.body)
            if count and size > MAX_BATCH_BYTES:
                break
            count += 1
        gathered, self._waiting = self._waiting[:count], self._waiting[count:]
        if not self._waiting:
            self._filled.clear()
        return gathered


class Reply(NamedTuple):
    """The place of one webhook's answer."""

    replies: Replies
    sequence: int

    def accepted(self, run_id: str) -> None:
        """Tell the sender that the event is durable."""
        self.replies.put(
            pb.OutboundAnswer(
                sequence=self.sequence,
                status=200,
                headers=(_JSON, pb.Header(name=RUN_ID_HEADER, value=run_id)),
                body=b'{"run_id":"%s"}' % run_id.encode(),
            )
        )

    def refused(self, error: MillraceError) -> None:
        """Tell the sender why it was not taken."""
        self.replies.put(to_answer(error, self.sequence))


_JSON = pb.Header(name="content-type", value="application/json")
