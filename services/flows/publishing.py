"""How a version becomes live, and how a flow is switched on and off (architecture.md, The way of a publish).

Decides: each change gets a number and one event, in the transaction of the fact (I9); consumers apply it and report; a flow is `enabled` when all
have, `enable_failed` when one refused, and then the version before it is announced again. Callers wait for that, up to a limit.
Leaves: applying to the consumers, each idempotent by (flow, change number).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from uuid import UUID

import msgspec

from chassis.clock import Clock
from chassis.database import Database, Pooled
from chassis.errors import Conflict, Fault, Unprocessable
from chassis.ids import new_id
from chassis.outbox import Outbox
from flowlang.documents import read_json, write_json
from millrace.events.v1.events_pb2 import FlowChanged
from services.flows import flow_store, version_store
from services.flows.checks import Checks
from services.flows.flow_store import DraftRow, FlowRow
from services.flows.flows import flow_not_found, now, refuse_stale
from services.flows.version_store import VersionRow

TOPIC = "flow-changes"
CONSUMERS = frozenset({"webhooks"})
"""Who must have applied a change before it counts; each reports under its name."""
DISABLED, ENABLING, ENABLED, ENABLE_FAILED = 1, 2, 3, 4
LOOK_S = 0.1
"""How often a waiting call looks for reports that another replica received, in seconds."""


class Publishing:
    """Takes versions live."""

    def __init__(self, database: Database, outbox: Outbox, checks: Checks, clock: Clock, wait_s: float) -> None:
        self._database = database
        self._outbox = outbox
        self._checks = checks
        self._clock = clock
        self._wait_s = wait_s
        self._reported = asyncio.Condition()

    async def publish(self, project_id: str, flow_id: UUID, seen_revision: int, user_id: str) -> tuple[FlowRow, VersionRow]:
        """Lock the draft as a version and take it live. Raises NotFound, Conflict DRAFT_STALE, Unprocessable DRAFT_INVALID."""
        draft = await self._require(project_id, flow_id)
        refuse_stale(draft.flow, seen_revision)
        document = await self._publishable(draft)
        async with self._database.transaction() as connection:
            locked = await self._lock(connection, project_id, flow_id)
            refuse_stale(locked.flow, draft.flow.draft_revision)
            at = now(self._clock)
            version = VersionRow(
                new_id(), flow_id, locked.flow.project_id, locked.flow.last_number + 1, locked.flow.draft_revision, document, at, user_id
            )
            await version_store.insert(connection, version)
            await self._announce(connection, locked.flow, at, next_version_id=version.id, last_number=version.number, state=ENABLING)
        return await self._settled(project_id, flow_id), version

    async def enable(self, project_id: str, flow_id: UUID) -> FlowRow:
        """Switch on. Raises NotFound, Conflict FLOW_NOT_PUBLISHED."""
        async with self._database.transaction() as connection:
            flow = (await self._lock(connection, project_id, flow_id)).flow
            if flow.state == ENABLED:
                return flow
            version_id = flow.next_version_id or flow.live_version_id
            if version_id is None:
                raise Conflict("FLOW_NOT_PUBLISHED", f"Flow {flow_id} has no published version. Publish its draft first.")
            await self._announce(connection, flow, now(self._clock), next_version_id=version_id, state=ENABLING)
        return await self._settled(project_id, flow_id)

    async def disable(self, project_id: str, flow_id: UUID) -> FlowRow:
        """Switch off. Raises NotFound."""
        async with self._database.transaction() as connection:
            flow = (await self._lock(connection, project_id, flow_id)).flow
            if flow.state == DISABLED:
                return flow
            await self._announce(connection, flow, now(self._clock), state=DISABLED)
        return await self._settled(project_id, flow_id)

    async def delete(self, project_id: str, flow_id: UUID) -> None:
        """Delete a flow; returns when its endpoints are gone, or after the limit. Raises NotFound."""
        async with self._database.transaction() as connection:
            flow = (await self._lock(connection, project_id, flow_id)).flow
            await flow_store.delete(connection, flow_id, now(self._clock))
            await self._tell(connection, flow, flow.change_number + 1)
        await self._until(lambda: self._all_applied(flow_id, flow.change_number + 1))

    async def report(self, flow_id: UUID, change_number: int, consumer: str, failure: str) -> None:
        """A consumer applied a change, or cannot. Late and repeated reports change nothing."""
        async with self._database.transaction() as connection:
            row = await flow_store.lock_any(connection, flow_id)
            if row is None:
                return
            await version_store.report(connection, flow_id, consumer, change_number, failure)
            if change_number == row.flow.change_number and row.flow.state == ENABLING:
                await self._conclude(connection, row.flow)
        async with self._reported:
            self._reported.notify_all()

    async def freeze(self, flow_id: UUID) -> VersionRow:
        """The draft as it is now, as an unlisted version. Raises NotFound, Unprocessable DRAFT_INVALID."""
        row = await flow_store.get_any(self._database, flow_id)
        if row is None or row.deleted:
            raise flow_not_found(flow_id)
        document = await self._publishable(row)
        version = VersionRow(new_id(), flow_id, row.flow.project_id, 0, row.flow.draft_revision, document, now(self._clock), "")
        return await version_store.freeze(self._database, version)

    async def _conclude(self, connection: Pooled, flow: FlowRow) -> None:
        """Decide a change once every consumer has said something, or one has refused."""
        reports = await version_store.reports(connection, flow.id, flow.change_number)
        failures = [f"{consumer}: {failure}" for consumer, failure in sorted(reports.items()) if failure]
        at = now(self._clock)
        if failures:
            failed = {"state": ENABLE_FAILED, "failure": "; ".join(failures), "next_version_id": None}
            if flow.live_version_id is None:
                await flow_store.write_state(connection, msgspec.structs.replace(flow, **failed), at)
            else:  # the version before it stays live: say so to those who have applied the new one already
                await self._announce(connection, flow, at, **failed)
        elif reports.keys() >= CONSUMERS:
            version_id = flow.next_version_id
            assert version_id is not None  # noqa: S101 - a flow that is enabling has one
            [version] = await version_store.several(self._database, [version_id])
            live = {"state": ENABLED, "failure": "", "live_version_id": version_id, "live_number": version.number}
            await flow_store.write_state(connection, msgspec.structs.replace(flow, next_version_id=None, **live), at)

    async def _announce(self, connection: Pooled, flow: FlowRow, at: datetime, **changes: object) -> None:
        """Write a change under the next change number, with its event, in one transaction (I9)."""
        changed = msgspec.structs.replace(flow, change_number=flow.change_number + 1, **{"failure": "", **changes})
        await flow_store.write_state(connection, changed, at)
        await self._tell(connection, flow, changed.change_number)

    async def _tell(self, connection: Pooled, flow: FlowRow, change_number: int) -> None:
        event = FlowChanged(flow_id=str(flow.id), project_id=str(flow.project_id), change_number=change_number)
        await self._outbox.add(connection, TOPIC, flow.id.bytes, event.SerializeToString())

    async def _settled(self, project_id: str, flow_id: UUID) -> FlowRow:
        """The flow once its last change was applied or refused, or as it stands after the limit."""

        async def settled() -> bool:
            flow = (await self._require(project_id, flow_id)).flow
            if flow.state == ENABLING:
                return False
            return flow.state != DISABLED or await self._all_applied(flow_id, flow.change_number)

        await self._until(settled)
        return (await self._require(project_id, flow_id)).flow

    async def _all_applied(self, flow_id: UUID, change_number: int) -> bool:
        async with self._database.acquire() as connection:
            return (await version_store.reports(connection, flow_id, change_number)).keys() >= CONSUMERS

    async def _until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Wait until the condition holds, at most the limit. Reports of this process wake it, those of replicas are looked for."""
        deadline = self._clock.monotonic() + self._wait_s
        while not await condition() and self._clock.monotonic() < deadline:
            async with self._reported:
                try:
                    async with asyncio.timeout(LOOK_S):
                        await self._reported.wait()
                except TimeoutError:
                    continue

    async def _publishable(self, draft: DraftRow) -> bytes:
        flow = read_json(draft.document)
        checked = await self._checks.check(flow)
        if not checked.valid:
            faults = [Fault(fault.step_id, fault.field, fault.message, fault.reason) for fault in checked.faults]
            raise Unprocessable("DRAFT_INVALID", f"The draft has {len(faults)} faults to mend before it can run.", faults=faults)
        return write_json(await self._checks.pin(flow))

    async def _require(self, project_id: str, flow_id: UUID) -> DraftRow:
        row = await flow_store.get_draft(self._database, project_id, flow_id)
        if row is None:
            raise flow_not_found(flow_id)
        return row

    async def _lock(self, connection: Pooled, project_id: str, flow_id: UUID) -> DraftRow:
        row = await flow_store.lock_draft(connection, project_id, flow_id)
        if row is None:
            raise flow_not_found(flow_id)
        return row
