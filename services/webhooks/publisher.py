"""Accepted events on their way into the log: gathered, packed, published, then answered.

Decides: a publish carries what gathered while the last one was in flight, in as few records as fit; who is told what
when it succeeded or failed; how much may wait.
Leaves: durability to the log port; run ids and payloads to ingest.py.
Holds: I1: no 2xx leaves before `log.publish` returned. An event that was refused may still become a run when the log
failed half way: the sender was told to repeat, and a duplicate key makes that safe.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from millrace.events.v1.events_pb2 import ExecutionBatch, ExecutionRequest

from chassis.errors import MillraceError, Unavailable
from chassis.failpoints import reach
from chassis.ids import text_of
from chassis.log.port import Log, OutRecord
from services.webhooks.answers import Answers
from services.webhooks.refusals import busy
from services.webhooks.replies import Reply
from services.webhooks.settings import WebhooksSettings

TOPIC = "executions"
MAX_PUBLISH_BYTES = 8 * 1024 * 1024
_ITEM_OVERHEAD_BYTES = 8  # tag and length of a repeated item


@dataclass(slots=True, eq=False)
class Event:
    """One accepted event: what becomes a run, and whom to tell. Several when duplicates came together."""

    request: ExecutionRequest
    told: tuple[Reply, ...]
    """Answered as soon as the event is durable."""
    held: tuple[Reply, ...] = ()
    """Wait for the run's own answer (registered with Answers); told here only when the event is refused."""
    when_published: Callable[[], None] | None = None
    """Called once the event is durable, before anyone is told."""


class Publisher:
    """The one writer of `executions` in this process."""

    def __init__(self, log: Log, answers: Answers, settings: WebhooksSettings) -> None:
        self._log = log
        self._answers = answers
        self._batch_bytes = settings.webhook_batch_bytes
        self._most_waiting = settings.webhook_waiting_bytes
        self._timeout_s = settings.webhook_publish_timeout_s
        self._waiting: list[tuple[Event, int]] = []
        self._waiting_bytes = 0
        self._filled = asyncio.Event()

    def check_room(self, size: int) -> None:
        """Return when that much more may wait. Raises: Unavailable WEBHOOKS_BUSY."""
        if self._waiting_bytes + size > self._most_waiting:
            raise busy("The log cannot keep up with the events that come in.")

    def add(self, event: Event) -> None:
        """Put an event in line; its senders are told once it is durable or refused."""
        size = event.request.ByteSize() + _ITEM_OVERHEAD_BYTES
        self._waiting.append((event, size))
        self._waiting_bytes += size
        self._filled.set()

    async def run(self) -> None:
        """Publish what waits, for ever."""
        while True:
            await self._filled.wait()
            events, records = self._take()
            await self._publish(events, records)

    def _take(self) -> tuple[list[Event], list[OutRecord]]:
        total, count = 0, 0
        for _, size in self._waiting:
            if count and total + size > MAX_PUBLISH_BYTES:
                break
            total += size
            count += 1
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        self._waiting_bytes -= total
        if not self._waiting:
            self._filled.clear()
        return [event for event, _ in taken], pack(taken, self._batch_bytes)

    async def _publish(self, events: Sequence[Event], records: Sequence[OutRecord]) -> None:
        failure: MillraceError | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                await reach("webhooks.before_publish")
                await self._log.publish(TOPIC, records)
                await reach("webhooks.published")
        except TimeoutError:
            failure = _away("it did not answer in time")
        except Unavailable as error:
            failure = _away(error.message, error.retry_after_s)
        except MillraceError as error:
            failure = error
        for event in events:
            if failure is None:  # I1: nobody hears of success before the log has it
                _tell_accepted(event)
            else:
                self._tell_refused(event, failure)

    def _tell_refused(self, event: Event, failure: MillraceError) -> None:
        for reply in event.told:
            reply.refused(failure)
        for reply in event.held:
            # The log may have failed after it stored: a run may have answered already, then nobody waits any more.
            if self._answers.forget(event.request.run_id, reply):
                reply.refused(failure)


def pack(events: Sequence[tuple[Event, int]], batch_bytes: int) -> list[OutRecord]:
    """The records for these events in order; an event alone in its record may be larger than `batch_bytes`."""
    records: list[OutRecord] = []
    gathered: list[ExecutionRequest] = []
    total = 0
    for event, size in events:
        if gathered and total + size > batch_bytes:
            records.append(_record(gathered))
            gathered, total = [], 0
        gathered.append(event.request)
        total += size
    if gathered:
        records.append(_record(gathered))
    return records


def _tell_accepted(event: Event) -> None:
    if event.when_published is not None:
        event.when_published()
    if event.told:
        run_id = text_of(event.request.run_id)
        for reply in event.told:
            reply.accepted(run_id)


def _record(requests: list[ExecutionRequest]) -> OutRecord:
    return OutRecord(requests[0].run_id, ExecutionBatch(requests=requests).SerializeToString())


def _away(why: str, retry_after_s: float | None = None) -> Unavailable:
    return Unavailable(
        "LOG_AWAY",
        f"The event could not be stored: {why} Send it again in a moment.",
        retry_after_s=retry_after_s or 1.0,
    )
