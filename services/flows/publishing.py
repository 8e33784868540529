"""How a version becomes live, and how a flow is switched on and off (architecture.md, The way of a publish).

Decides: each change gets a number and one event, in the transaction of the fact (I9); consumers apply it and report; a
flow is `enabled` when all have, `enable_failed` when one refused, and then what was live before is announced again.
Leaves: applying to the consumers, each idempotent by (flow, change number); waiting for them to settling.py.
"""

from __future__ import annotations

from uuid import UUID

import msgspec
from millrace.events.v1.events_pb2 import FlowChanged

from chassis.clock import Clock
from chassis.database import Database, Pooled
from chassis.ids import new_id
from chassis.outbox import Outbox
from flowlang.documents import read_json
from services.flows import draft_store, flow_store, live_store, version_store
from services.flows.checks import Checks
from services.flows.draft_store import DraftRow
from services.flows.drafts import refuse_stale
from services.flows.flow_store import FlowRow, State, now
from services.flows.refusals import draft_invalid, flow_not_found, flow_not_published
from services.flows.settling import CONSUMERS, Settling
from services.flows.version_store import VersionRow

TOPIC = "flow-changes"


class Publishing:
    """Takes versions live and down."""

    def __init__(self, database: Database, outbox: Outbox, checks: Checks, settling: Settling, clock: Clock) -> None:
        self._database = database
        self._outbox = outbox
        self._checks = checks
        self._settling = settling
        self._clock = clock

    async def publish(
        self, project_id: str, flow_id: UUID, seen_revision: int, user_id: str
    ) -> tuple[FlowRow, VersionRow]:
        """Lock the draft as a version and take it live.

        Raises NotFound FLOW_NOT_FOUND, Conflict DRAFT_STALE, Unprocessable DRAFT_INVALID.
        """
        version = None
        while version is None:  # edited while it was checked: the next draft is another one to check, or stale
            draft = await draft_store.get(self._database, project_id, flow_id)
            if draft is None:
                raise flow_not_found(flow_id)
            refuse_stale(flow_id, seen_revision, draft.flow.draft_revision)
            document = await self._runnable(draft)
            version = await self._locked_in(draft.flow, document, user_id)
        return await self._settled(flow_id), version

    async def enable(self, project_id: str, flow_id: UUID) -> FlowRow:
        """Take the version published last live. Raises NotFound FLOW_NOT_FOUND, Conflict FLOW_NOT_PUBLISHED."""
        async with self._database.transaction() as connection:
            flow = await _lock(connection, project_id, flow_id)
            if flow.newest_version_id is None:
                raise flow_not_published(flow_id)
            if flow.state in (State.DISABLED, State.ENABLE_FAILED):
                await self._announce(connection, msgspec.structs.replace(flow, state=State.ENABLING, failure=""))
        return await self._settled(flow_id)

    async def disable(self, project_id: str, flow_id: UUID) -> FlowRow:
        """Take down whatever is live or on its way to be. Raises NotFound FLOW_NOT_FOUND."""
        async with self._database.transaction() as connection:
            flow = await _lock(connection, project_id, flow_id)
            if flow.state != State.DISABLED:
                await self._announce(connection, _down(flow))
        return await self._settled(flow_id)

    async def delete(self, project_id: str, flow_id: UUID) -> None:
        """Delete a flow; its versions stay for its runs. Raises NotFound FLOW_NOT_FOUND."""
        async with self._database.transaction() as connection:
            flow = await _lock(connection, project_id, flow_id)
            await flow_store.mark_deleted(connection, flow_id, now(self._clock))
            await draft_store.forget(connection, flow_id)
            await self._announce(connection, _down(flow))
        await self._settled(flow_id)

    async def report(self, flow_id: UUID, change_number: int, consumer: str, failure: str) -> None:
        """A consumer applied a change, or cannot. Reports that are late, repeated or about nothing change nothing."""
        async with self._database.transaction() as connection:
            flow = await flow_store.lock_any(connection, flow_id)
            if flow is None or change_number != flow.change_number:
                return
            await live_store.report(connection, flow_id, consumer, change_number, failure)
            if flow.state == State.ENABLING:
                await self._conclude(connection, flow)
        self._settling.tell()

    async def freeze(self, flow_id: UUID) -> VersionRow:
        """The draft as it is now, as an unlisted version; one revision gives one version.

        Raises NotFound FLOW_NOT_FOUND, Unprocessable DRAFT_INVALID.
        """
        draft = await draft_store.get_any(self._database, flow_id)
        if draft is None:
            raise flow_not_found(flow_id)
        revision = draft.flow.draft_revision
        frozen = await version_store.get_frozen(self._database, flow_id, revision)
        if frozen is not None:
            return frozen
        version = self._version(draft.flow, 0, await self._runnable(draft), "")
        await version_store.freeze(self._database, version)
        # Another call may have been faster: what it froze counts.
        return await version_store.get_frozen(self._database, flow_id, revision) or version

    async def _runnable(self, draft: DraftRow) -> bytes:
        """The document to run: without faults, every piece in an exact version. Raises Unprocessable DRAFT_INVALID."""
        checked = await self._checks.check(read_json(draft.document))
        if not checked.valid:
            raise draft_invalid(checked.faults)
        return checked.pinned()

    async def _locked_in(self, seen: FlowRow, document: bytes, user_id: str) -> VersionRow | None:
        """Make the draft that was seen a version and announce it; None when the draft was edited meanwhile."""
        async with self._database.transaction() as connection:
            flow = await _lock(connection, str(seen.project_id), seen.id)
            if flow.draft_revision != seen.draft_revision:
                return None
            version = self._version(flow, flow.newest_number + 1, document, user_id)
            await version_store.insert(connection, version)
            newest = {"newest_version_id": version.id, "newest_number": version.number}
            await self._announce(connection, msgspec.structs.replace(flow, state=State.ENABLING, failure="", **newest))
        return version

    def _version(self, flow: FlowRow, number: int, document: bytes, user_id: str) -> VersionRow:
        return VersionRow(
            id=new_id(),
            flow_id=flow.id,
            project_id=flow.project_id,
            number=number,
            revision=flow.draft_revision,
            published_at=now(self._clock),
            published_by=user_id,
            document=document,
        )

    async def _conclude(self, connection: Pooled, flow: FlowRow) -> None:
        """Decide an enabling once every consumer has applied it, or one has refused."""
        reports = await live_store.reports(connection, flow.id, flow.change_number)
        failures = [f"{consumer}: {failure}" for consumer, failure in sorted(reports.items()) if failure]
        if failures:  # announced, for those who have taken the new version already: back to what was live before
            failed = msgspec.structs.replace(flow, state=State.ENABLE_FAILED, failure="; ".join(failures))
            await self._announce(connection, failed)
        elif reports.keys() >= CONSUMERS:
            live = {"live_version_id": flow.newest_version_id, "live_number": flow.newest_number}
            enabled = msgspec.structs.replace(flow, state=State.ENABLED, failure="", **live)
            await flow_store.write_state(connection, enabled, now(self._clock))

    async def _announce(self, connection: Pooled, changed: FlowRow) -> None:
        """Write a change under the next number, and then its event, in the caller's transaction (I9)."""
        numbered = msgspec.structs.replace(changed, change_number=changed.change_number + 1)
        await flow_store.write_state(connection, numbered, now(self._clock))
        event = FlowChanged(
            flow_id=str(numbered.id), project_id=str(numbered.project_id), change_number=numbered.change_number
        )
        await self._outbox.add(connection, TOPIC, numbered.id.bytes, event.SerializeToString())

    async def _settled(self, flow_id: UUID) -> FlowRow:
        flow = await self._settling.settled(flow_id)
        if flow is None:
            raise flow_not_found(flow_id)
        return flow


def _down(flow: FlowRow) -> FlowRow:
    return msgspec.structs.replace(flow, state=State.DISABLED, failure="", live_version_id=None, live_number=0)


async def _lock(connection: Pooled, project_id: str, flow_id: UUID) -> FlowRow:
    flow = await flow_store.lock(connection, project_id, flow_id)
    if flow is None:
        raise flow_not_found(flow_id)
    return flow
