"""Duplicates: a sender's key collapses to the first run (execution.md, Duplicates).

Decides: one statement stores or finds the keys of all events that gathered; a duplicate whose first event is not
known to be in the log is published again under the stored run id (closes the crash between key and publish); one that
is gets the first one's run without starting another.
Leaves: the statements to idempotency_store.py, the log to publisher.py, waiting for a run's answer to answers.py.
Holds: I2. The key is durable before the event is published; without the database keyed events are refused (503).
"""

import asyncio
import hashlib
from dataclasses import dataclass
from uuid import UUID

import structlog
from millrace.events.v1.events_pb2 import ExecutionRequest

from chassis.clock import Clock
from chassis.errors import MillraceError, Unavailable
from chassis.failpoints import reach
from chassis.ids import text_of
from services.webhooks.answers import Answers
from services.webhooks.idempotency_store import IdempotencyStore, Key
from services.webhooks.publisher import Event, Publisher
from services.webhooks.refusals import busy
from services.webhooks.replies import Reply
from services.webhooks.settings import WebhooksSettings

MAX_WAITING = 10_000
_GATHER = 1000
_TRIM_EVERY_S = 300.0
_TRIM_ROWS = 5000
_RETRY_S = 1.0
_DAY_MS = 86_400_000
_log = structlog.get_logger("webhooks.idempotency")


def key_of(flow_id: str, trigger_id: str, text: str) -> Key:
    """The key of an event: the sender's text, which counts within one trigger of one flow."""
    return Key(UUID(flow_id), hashlib.sha256(f"{trigger_id}\0{text}".encode()).digest())


@dataclass(slots=True)
class _Keyed:
    key: Key
    request: ExecutionRequest
    reply: Reply
    sync: bool


class Duplicates:
    """Events that carry a key, on their way to the publisher."""

    def __init__(
        self,
        store: IdempotencyStore,
        publisher: Publisher,
        answers: Answers,
        clock: Clock,
        settings: WebhooksSettings,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._answers = answers
        self._clock = clock
        self._keep_ms = settings.webhook_idempotency_days * _DAY_MS
        self._waiting: list[_Keyed] = []
        self._filled = asyncio.Event()
        self._published: list[tuple[Key, UUID]] = []
        self._some_published = asyncio.Event()

    def add(self, key: Key, request: ExecutionRequest, reply: Reply, *, sync: bool) -> None:
        """Put a keyed event in line. Raises: Unavailable WEBHOOKS_BUSY."""
        if len(self._waiting) >= MAX_WAITING:
            raise busy("Too many events with a duplicate key wait for the database.")
        self._waiting.append(_Keyed(key, request, reply, sync))
        self._filled.set()

    async def run(self) -> None:
        """Store or find the keys that gathered, then pass their events on, for ever."""
        while True:
            await self._filled.wait()
            taken, self._waiting = self._waiting[:_GATHER], self._waiting[_GATHER:]
            if not self._waiting:
                self._filled.clear()
            await self._settle(_grouped(taken))

    async def _settle(self, groups: dict[Key, list[_Keyed]]) -> None:
        now_ms = self._clock.now_ms()
        minted = [(key, UUID(bytes=same[0].request.run_id)) for key, same in groups.items()]
        try:
            found = await self._store.insert_or_find(minted, now_ms=now_ms, expires_at_ms=now_ms + self._keep_ms)
            await reach("webhooks.key_stored")
        except MillraceError as error:
            for same in groups.values():
                for one in same:
                    one.reply.refused(_keys_away(error))
            return
        for key, same in groups.items():
            run_id, published = found[key]
            if published:
                self._answer(run_id.bytes, same)
            else:
                self._publish(key, run_id, same)

    def _publish(self, key: Key, run_id: UUID, same: list[_Keyed]) -> None:
        request = same[0].request
        request.run_id = run_id.bytes
        told = tuple(one.reply for one in same if not one.sync)
        held = tuple(one.reply for one in same if one.sync)
        for one in same:
            if one.sync:
                request.reply_to = one.request.reply_to
                # Whoever published it first may get the stream's answer instead of this request: ask as well.
                self._answers.wait(run_id.bytes, one.reply, ask_now=one is not same[0])

        def published() -> None:
            self._published.append((key, run_id))
            self._some_published.set()

        self._publisher.add(Event(request, told, held, published))

    def _answer(self, run_id: bytes, same: list[_Keyed]) -> None:
        for one in same:
            if one.sync:
                self._answers.wait(run_id, one.reply, ask_now=True)
            else:
                one.reply.accepted(text_of(run_id))

    async def mark(self) -> None:
        """Write down which keys are in the log, for ever. Late or lost marks only make a duplicate publish again."""
        while True:
            await self._some_published.wait()
            self._some_published.clear()
            marked, self._published = self._published, []
            try:
                await self._store.mark_published(list(dict(marked).items()))
            except Unavailable as error:
                _log.warning("keys_not_marked", reason=error.reason, keys=len(marked))
                self._published = (marked + self._published)[-MAX_WAITING:]
                await asyncio.sleep(_RETRY_S)
                self._some_published.set()

    async def trim(self) -> None:
        """Forget the keys that expired, for ever."""
        while True:
            try:
                while await self._store.trim(now_ms=self._clock.now_ms(), limit=_TRIM_ROWS) == _TRIM_ROWS:
                    pass
            except Unavailable as error:
                _log.warning("keys_not_trimmed", reason=error.reason)
            await asyncio.sleep(_TRIM_EVERY_S)


def _grouped(keyed: list[_Keyed]) -> dict[Key, list[_Keyed]]:
    groups: dict[Key, list[_Keyed]] = {}
    for one in keyed:
        groups.setdefault(one.key, []).append(one)
    return groups


def _keys_away(error: MillraceError) -> Unavailable:
    return Unavailable(
        "DATABASE_AWAY",
        f"This webhook remembers duplicates, and its memory is away: {error.message}",
        retry_after_s=error.retry_after_s or 1.0,
    )
