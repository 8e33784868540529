"""The hot path: one HTTP request to a webhook address becomes one accepted event, or a refusal.

Decides: what is done at once, and what needs a task of its own (an unknown flow, a fresh secret, a large body, a
file, a simulation); the run id, minted here and nowhere else (I2).
Leaves: checks to reading.py, durability to publisher.py, duplicates to idempotency.py, waiting to answers.py.
Holds: an event of a known endpoint without a duplicate key costs no query, no task and no log line.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from millrace.events.v1.events_pb2 import ExecutionRequest
from millrace.webhooks.v1 import ingest_pb2 as pb

from chassis.documents import pack
from chassis.errors import MillraceError
from chassis.failpoints import reach
from chassis.ids import new_id_bytes
from services.webhooks.endpoints import Endpoint, FlowEndpoints
from services.webhooks.idempotency import key_of
from services.webhooks.parts import Parts
from services.webhooks.payload import headers_of
from services.webhooks.publisher import Event
from services.webhooks.reading import body_kind, check_method, choose, duplicate_key
from services.webhooks.refusals import busy, internal
from services.webhooks.replies import Reply
from services.webhooks.settings import WebhooksSettings
from services.webhooks.simulate import Simulations
from services.webhooks.uploads import PACKED_TYPE
from services.webhooks.verify import verify

SYNC = pb.INGEST_MODE_SYNC
SIMULATE = pb.INGEST_MODE_SIMULATE
_ASIDE_AT_MOST = 4000

Slow = Callable[[pb.InboundWebhook, Reply], Awaitable[None]]
"""The rest of taking one webhook, to be awaited."""


class Ingest:
    """Takes webhooks in."""

    def __init__(self, parts: Parts, simulations: Simulations, settings: WebhooksSettings, *, reply_to: str) -> None:
        self._parts = parts
        self._simulations = simulations
        self._reply_to = reply_to
        self._inline_bytes = settings.webhook_inline_bytes
        self._aside = 0

    def take(self, hook: pb.InboundWebhook, reply: Reply, aside: asyncio.TaskGroup) -> None:
        """Take one webhook; its reply is put once the event is durable or refused. What needs time goes to `aside`."""
        try:
            self._parts.publisher.check_room(len(hook.body))
            if hook.mode == SIMULATE:
                self._set_aside(self._simulations.take, hook, reply, aside)
            elif (flow := self._parts.endpoints.get(hook.flow_id)) is None:
                self._set_aside(self._look_up, hook, reply, aside)
            else:
                slow = self._take(flow, hook, reply)
                if slow is not None:
                    self._set_aside(slow, hook, reply, aside)
        except Exception as error:  # noqa: BLE001  # one request's fault must not end the stream that carries all
            self._refuse(hook, reply, error)

    def _take(self, flow: FlowEndpoints, hook: pb.InboundWebhook, reply: Reply, *, reread: bool = False) -> Slow | None:
        """Accept one webhook of a known flow at once, or return what must be awaited to do so."""
        parts = self._parts
        endpoint = choose(flow, hook.trigger_id)
        check_method(endpoint, hook.method)
        headers = headers_of(hook.headers)
        refusal = verify(endpoint.proof, headers, hook.body, parts.clock.now_ms()) if endpoint.proof else None
        if refusal is not None:
            if endpoint.trigger.secret_references and not reread:
                return self._reread  # the secret may have been replaced a moment ago
            raise refusal
        kind = body_kind(endpoint, headers)
        if parts.reader.takes_time(kind, hook.body):
            return partial(self._read_slowly, flow, endpoint, headers, kind)
        output = parts.reader.output(hook, endpoint, headers, kind)
        call = _Call(flow, endpoint, duplicate_key(endpoint, headers, output))
        document = pack(output)
        if len(document) > self._inline_bytes:
            return partial(self._store, call, document)
        self._accept(call, hook, reply, document)
        return None

    def _accept(self, call: "_Call", hook: pb.InboundWebhook, reply: Reply, document: bytes, file_id: str = "") -> None:
        flow, trigger_id = call.flow, call.endpoint.trigger.id
        sync = hook.mode == SYNC
        request = ExecutionRequest(
            run_id=new_id_bytes(),
            project_id=flow.project_id,
            flow_id=flow.flow_id,
            version_id=flow.version_id,
            trigger_id=trigger_id,
            payload=document,
            payload_file_id=file_id,
            reply_to=self._reply_to if sync else "",
        )
        if call.key:
            self._parts.duplicates.add(key_of(flow.flow_id, trigger_id, call.key), request, reply, sync=sync)
        elif sync:
            self._parts.answers.wait(request.run_id, reply)
            self._parts.publisher.add(Event(request, told=(), held=(reply,)))
        else:
            self._parts.publisher.add(Event(request, told=(reply,)))

    async def _look_up(self, hook: pb.InboundWebhook, reply: Reply) -> None:
        flow = await self._parts.endpoints.look_up(hook.flow_id.lower())
        await self._finish(self._take(flow, hook, reply), hook, reply)

    async def _reread(self, hook: pb.InboundWebhook, reply: Reply) -> None:
        flow = await self._parts.endpoints.reread_secrets(hook.flow_id.lower())
        await self._finish(self._take(flow, hook, reply, reread=True), hook, reply)

    async def _finish(self, slow: Slow | None, hook: pb.InboundWebhook, reply: Reply) -> None:
        if slow is not None:
            await slow(hook, reply)

    async def _read_slowly(
        self,
        flow: FlowEndpoints,
        endpoint: Endpoint,
        headers: dict[str, str],
        kind: str,
        hook: pb.InboundWebhook,
        reply: Reply,
    ) -> None:
        output = await self._parts.reader.output_slowly(hook, flow.project_id, endpoint, headers, kind)
        call = _Call(flow, endpoint, await asyncio.to_thread(duplicate_key, endpoint, headers, output))
        document = await asyncio.to_thread(pack, output)
        if len(document) > self._inline_bytes:
            await self._store(call, document, hook, reply)
        else:
            self._accept(call, hook, reply, document)

    async def _store(self, call: "_Call", document: bytes, hook: pb.InboundWebhook, reply: Reply) -> None:
        file = await self._parts.uploads.store(call.flow.project_id, "payload", PACKED_TYPE, document)
        await reach("webhooks.payload_stored")
        self._accept(call, hook, reply, b"", file.id)

    def _set_aside(self, slow: Slow, hook: pb.InboundWebhook, reply: Reply, aside: asyncio.TaskGroup) -> None:
        if self._aside >= _ASIDE_AT_MOST:
            raise busy("Too many requests need more than a moment.")
        self._aside += 1
        task = aside.create_task(self._guarded(slow, hook, reply))
        task.add_done_callback(self._one_less_aside)

    def _one_less_aside(self, _: asyncio.Task[None]) -> None:
        self._aside -= 1

    async def _guarded(self, slow: Slow, hook: pb.InboundWebhook, reply: Reply) -> None:
        try:
            await slow(hook, reply)
        except Exception as error:  # noqa: BLE001  # one request's fault must not end the stream that carries all
            self._refuse(hook, reply, error)

    def _refuse(self, hook: pb.InboundWebhook, reply: Reply, error: Exception) -> None:
        refusal = error if isinstance(error, MillraceError) else internal(error)
        reply.refused(refusal)
        flow = self._parts.endpoints.get(hook.flow_id)
        if flow is not None and flow.state == "live":
            self._parts.deliveries.refused(flow, hook, refusal)


@dataclass(frozen=True, slots=True)
class _Call:
    """A call that passed its checks."""

    flow: FlowEndpoints
    endpoint: Endpoint
    key: str
    """The sender's duplicate key; empty: none."""
