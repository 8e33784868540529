"""What a person looks at when a webhook was refused: the deliveries that became no run, kept sparsely.

Decides: which deliveries are kept (a few a minute for each flow, bodies cut off), and for how long; written in
batches off the hot path, dropped when the database is away: they are a help, not a promise.
Leaves: accepted events to the runs' journals.
Holds: no header that proves who someone is, is stored; memory is bounded whatever comes in.
"""

import asyncio
from collections import Counter
from uuid import UUID

import msgspec
import structlog
from millrace.webhooks.v1 import ingest_pb2 as pb

from chassis.clock import Clock
from chassis.documents import pack
from chassis.errors import MillraceError, Unavailable
from chassis.ids import first_id_at, new_id
from services.webhooks.delivery_store import Delivery, DeliveryStore
from services.webhooks.endpoints import FlowEndpoints
from services.webhooks.payload import MASK, headers_of
from services.webhooks.settings import WebhooksSettings

_BODY_BYTES = 16 * 1024
_WAITING_AT_MOST = 500
_A_MINUTE_FOR_EACH_FLOW = 10
_MINUTE_S = 60.0
_WRITE_EVERY_S = 1.0
_TRIM_EVERY_S = 600.0
_TRIM_ROWS = 2000
_DAY_MS = 86_400_000
_ALWAYS_MASKED = frozenset({"authorization", "proxy-authorization", "cookie"})
_log = structlog.get_logger("webhooks.deliveries")


class Deliveries:
    """Deliveries on their way into the table."""

    def __init__(self, store: DeliveryStore, clock: Clock, settings: WebhooksSettings) -> None:
        self._store = store
        self._clock = clock
        self._keep_ms = settings.webhook_delivery_days * _DAY_MS
        self._waiting: list[Delivery] = []
        self._filled = asyncio.Event()
        self._kept: Counter[str] = Counter()
        self._minute_from = 0.0

    def refused(self, flow: FlowEndpoints, hook: pb.InboundWebhook, error: MillraceError) -> None:
        """Keep a refused delivery, if its flow has room this minute."""
        trigger_id = hook.trigger_id if hook.trigger_id in flow.endpoints else ""
        self._keep(flow, trigger_id, hook, "refused", error.http, error.reason)

    def simulated(self, flow: FlowEndpoints, trigger_id: str, hook: pb.InboundWebhook) -> None:
        """Keep a simulated delivery, if its flow has room this minute."""
        self._keep(flow, trigger_id, hook, "simulated", 200, "")

    def _keep(
        self, flow: FlowEndpoints, trigger_id: str, hook: pb.InboundWebhook, kind: str, status: int, reason: str
    ) -> None:
        now = self._clock.monotonic()
        if now - self._minute_from >= _MINUTE_S:
            self._minute_from = now
            self._kept.clear()
        if self._kept[flow.flow_id] >= _A_MINUTE_FOR_EACH_FLOW or len(self._waiting) >= _WAITING_AT_MOST:
            return
        self._kept[flow.flow_id] += 1
        masked = _ALWAYS_MASKED.union(*(endpoint.trigger.masked_headers for endpoint in flow.endpoints.values()))
        headers = headers_of(hook.headers)
        shown = {name: MASK if name in masked else value[:1000] for name, value in headers.items()}
        self._waiting.append(
            Delivery(
                id=new_id(),
                project_id=UUID(flow.project_id),
                flow_id=UUID(flow.flow_id),
                trigger_id=trigger_id,
                kind=kind,
                status=status,
                reason=reason,
                method=hook.method,
                headers=pack(msgspec.json.encode(shown)),
                body=hook.body[:_BODY_BYTES],
                remote_address=hook.remote_address[:64],
            )
        )
        self._filled.set()

    async def write(self) -> None:
        """Write what gathered, about once a second, for ever."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            waiting, self._waiting = self._waiting, []
            try:
                await self._store.insert(waiting)
            except Unavailable as error:
                _log.warning("deliveries_dropped", reason=error.reason, deliveries=len(waiting))
            await asyncio.sleep(_WRITE_EVERY_S)

    async def trim(self) -> None:
        """Forget what is too old, for ever."""
        while True:
            before = first_id_at(self._clock.now_ms() - self._keep_ms)
            try:
                while await self._store.trim(before=before, limit=_TRIM_ROWS) == _TRIM_ROWS:
                    pass
            except Unavailable as error:
                _log.warning("deliveries_not_trimmed", reason=error.reason)
            await asyncio.sleep(_TRIM_EVERY_S)
