"""Simulations: the draft runs once on a real event, which becomes the trigger's sample.

Decides: a simulation freezes the draft, asks for the draft's own proof, keeps the event as sample, and starts one
test run.
Leaves: freezing and samples to flows; reading the event to reading.py.
"""

import asyncio
from typing import TYPE_CHECKING

from millrace.events.v1.events_pb2 import ExecutionRequest
from millrace.flows.v1.draft_pb2 import SaveSampleRequest
from millrace.flows.v1.version_pb2 import FreezeDraftRequest, Version
from millrace.webhooks.v1 import ingest_pb2 as pb

from chassis.documents import pack
from chassis.errors import Limited, NotFound
from chassis.ids import new_id_bytes
from services.webhooks.endpoints import FlowEndpoints, is_flow_id
from services.webhooks.parts import Parts
from services.webhooks.payload import headers_of
from services.webhooks.publisher import Event
from services.webhooks.reading import body_kind, check_method, choose
from services.webhooks.replies import Reply
from services.webhooks.settings import WebhooksSettings
from services.webhooks.uploads import PACKED_TYPE
from services.webhooks.verify import verify

if TYPE_CHECKING:
    from millrace.flows.v1.draft_pb2_grpc import DraftServiceAsyncStub
    from millrace.flows.v1.version_pb2_grpc import VersionServiceAsyncStub

_AT_ONCE = 16


class Simulations:
    """Runs drafts."""

    def __init__(
        self,
        versions: "VersionServiceAsyncStub",
        drafts: "DraftServiceAsyncStub",
        parts: Parts,
        settings: WebhooksSettings,
    ) -> None:
        self._versions = versions
        self._drafts = drafts
        self._parts = parts
        self._inline_bytes = settings.webhook_inline_bytes
        self._under_way = 0

    async def take(self, hook: pb.InboundWebhook, reply: Reply) -> None:
        """Take one event for the draft. Raises: Limited SIMULATIONS_BUSY, and what a live webhook raises."""
        if self._under_way >= _AT_ONCE:
            raise Limited(
                "SIMULATIONS_BUSY", "Too many simulations run at once. Try again in a moment.", retry_after_s=1
            )
        self._under_way += 1
        try:
            await self._take(hook, reply)
        finally:
            self._under_way -= 1

    async def _take(self, hook: pb.InboundWebhook, reply: Reply) -> None:
        version = await self._freeze(hook.flow_id.lower())
        resolved = await self._parts.endpoints.resolved(version.project_id, version.document)
        flow = FlowEndpoints(version.flow_id, "live", version.project_id, version.id, endpoints=resolved)
        endpoint = choose(flow, hook.trigger_id)
        check_method(endpoint, hook.method)
        headers = headers_of(hook.headers)
        refusal = verify(endpoint.proof, headers, hook.body, self._parts.clock.now_ms()) if endpoint.proof else None
        if refusal is not None:
            raise refusal
        kind = body_kind(endpoint, headers)
        output = await self._parts.reader.output_slowly(hook, version.project_id, endpoint, headers, kind)
        trigger_id = endpoint.trigger.id
        await self._drafts.SaveSample(
            SaveSampleRequest(
                project_id=version.project_id, flow_id=version.flow_id, trigger_id=trigger_id, output=output
            )
        )
        document = await asyncio.to_thread(pack, output)
        request = ExecutionRequest(
            run_id=new_id_bytes(),
            project_id=version.project_id,
            flow_id=version.flow_id,
            version_id=version.id,
            trigger_id=trigger_id,
            test=True,
        )
        if len(document) > self._inline_bytes:
            file = await self._parts.uploads.store(version.project_id, "payload", PACKED_TYPE, document)
            request.payload_file_id = file.id
        else:
            request.payload = document
        self._parts.deliveries.simulated(flow, trigger_id, hook)
        self._parts.publisher.add(Event(request, told=(reply,)))

    async def _freeze(self, flow_id: str) -> Version:
        if not is_flow_id(flow_id):
            raise _unknown()
        try:
            frozen = await self._versions.FreezeDraft(FreezeDraftRequest(flow_id=flow_id))
        except NotFound as error:
            raise _unknown() from error
        return frozen.version


def _unknown() -> NotFound:
    return NotFound("ENDPOINT_NOT_FOUND", "There is no flow at this address. Compare it with the flow's trigger.")
