"""How this replica hears of flows: the topic `flow-changes`, and a comparison with flows' own list every minute.

Decides: the topic is read from now on (the list brings what came before), each change is applied from flows' own answer
and reported back, what could not be applied for now is tried again, what was missed is mended.
Leaves: what a change means to endpoints.py.
Holds: after a report the next webhook meets the change (architecture.md, The way of a publish).
"""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog
from google.protobuf.message import DecodeError
from millrace.events.v1.events_pb2 import FlowChanged
from millrace.flows.v1.version_pb2 import GetLiveFlowRequest, ListLiveFlowsRequest, LiveFlow, ReportAppliedRequest

from chassis.errors import MillraceError, NotFound, Unavailable
from chassis.log import LATEST, Log, LogConsumer, PositionLost
from services.webhooks.endpoints import Endpoints

if TYPE_CHECKING:
    from millrace.flows.v1.version_pb2_grpc import VersionServiceAsyncStub

TOPIC = "flow-changes"
CONSUMER = "webhooks"
_BATCH = 200
_RETRY_S = 0.5
_MEND_RETRY_S = 1.0
_log = structlog.get_logger("webhooks.endpoints")


class EndpointFeed:
    """Keeps `Endpoints` like flows has them."""

    def __init__(self, log: Log, versions: "VersionServiceAsyncStub", endpoints: Endpoints, *, mend_s: float) -> None:
        self._flow_log = log
        self._versions = versions
        self._endpoints = endpoints
        self._mend_s = mend_s
        self._pending: dict[str, None] = {}
        self._some_pending = asyncio.Event()
        self._mend_now = asyncio.Event()
        self.listed = asyncio.Event()
        """Set once the list was taken in for the first time."""

    async def follow(self) -> None:
        """Hear of changes, for ever. Every flow named is read and applied by `apply_changes`."""
        while True:
            try:
                async with self._flow_log.consumer(TOPIC, None, self._from_now) as consumer:
                    await self._read(consumer)
            except (PositionLost, Unavailable) as error:  # made anew, or away: its end comes next, the list the rest
                _log.warning("flow_changes_interrupted", reason=error.reason)
                await asyncio.sleep(_RETRY_S)

    async def _read(self, consumer: LogConsumer) -> None:
        while True:
            for record in await consumer.batch(_BATCH):
                try:
                    flow_id = FlowChanged.FromString(record.value).flow_id
                except DecodeError:
                    _log.error("flow_change_unreadable", partition=record.partition, offset=record.offset)
                    continue
                self._try_again([flow_id])

    async def _from_now(self, partitions: frozenset[int]) -> Mapping[int, int]:
        self._mend_now.set()  # whatever was published until this moment is found in the list
        return dict.fromkeys(partitions, LATEST)

    async def apply_changes(self) -> None:
        """Apply and report what was heard of, for ever; what cannot be read now stays for the next round."""
        while True:
            await self._some_pending.wait()
            self._some_pending.clear()
            pending, self._pending = list(self._pending), {}
            failed = [flow_id for flow_id in pending if not await self._apply_change(flow_id)]
            if failed:
                self._pending = dict.fromkeys(failed) | self._pending
                await asyncio.sleep(_RETRY_S)
                self._some_pending.set()

    async def _apply_change(self, flow_id: str) -> bool:
        try:
            answer = await self._versions.GetLiveFlow(GetLiveFlowRequest(flow_id=flow_id))
            await self._apply_and_report(answer.flow)
        except NotFound:
            self._endpoints.forget(flow_id)
        except MillraceError as error:
            _log.warning("flow_change_waits", flow_id=flow_id, reason=error.reason)
            return not error.retryable
        return True

    async def _apply_and_report(self, flow: LiveFlow) -> None:
        failure = await self._endpoints.apply(flow)
        await self._versions.ReportApplied(
            ReportAppliedRequest(
                flow_id=flow.flow_id, change_number=flow.change_number, consumer=CONSUMER, failure=failure[:2000]
            )
        )

    async def mend(self) -> None:
        """Compare with flows' list at the start, every minute, and whenever changes may have been missed; for ever."""
        while True:
            self._mend_now.clear()
            try:
                await self._compare()
            except MillraceError as error:
                _log.warning("endpoints_not_compared", reason=error.reason)
                await asyncio.sleep(_MEND_RETRY_S)
                continue
            self.listed.set()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._mend_now.wait(), self._mend_s)

    async def _compare(self) -> None:
        before = {flow.flow_id: flow.change_number for flow in self._endpoints.live()}
        listed: set[str] = set()
        page_token = ""
        while True:
            page = await self._versions.ListLiveFlows(ListLiveFlowsRequest(page_size=200, page_token=page_token))
            for flow in page.flows:
                listed.add(flow.flow_id)
                if before.get(flow.flow_id) != flow.change_number:
                    await self._apply_listed(flow)
            page_token = page.next_page_token
            if not page_token:
                break
        self._try_again(before.keys() - listed)
        await self._reread_secrets()

    async def _apply_listed(self, flow: LiveFlow) -> None:
        try:
            await self._apply_and_report(flow)
        except MillraceError as error:  # one flow's trouble must not keep the others from being known
            _log.warning("flow_change_waits", flow_id=flow.flow_id, reason=error.reason)
            self._try_again([flow.flow_id])

    def _try_again(self, flow_ids: Iterable[str]) -> None:
        self._pending.update(dict.fromkeys(flow_ids))
        if self._pending:
            self._some_pending.set()

    async def _reread_secrets(self) -> None:
        for flow in self._endpoints.live():
            if flow.uses_connections:
                await self._endpoints.reread_secrets(flow.flow_id)
