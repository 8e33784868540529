"""Edits of drafts: operations with a revision check, all or none, safe to repeat."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from chassis.clock import Clock
from chassis.database import Database
from chassis.errors import Invalid
from flowlang.documents import read_json, write_json
from flowlang.model import Flow
from flowlang.operations import OperationError, apply, decode_operation
from services.flows import flow_store
from services.flows.checks import Checks
from services.flows.flow_store import DraftRow, SampleRow
from services.flows.flows import flow_not_found, now, refuse_stale


class Drafts:
    """The drafts of all flows."""

    def __init__(self, database: Database, checks: Checks, clock: Clock) -> None:
        self._database = database
        self._checks = checks
        self._clock = clock

    async def read(self, project_id: str, flow_id: UUID) -> tuple[DraftRow, Sequence[SampleRow]]:
        """A draft and the samples of its triggers. Raises NotFound."""
        return await self._draft(project_id, flow_id), await flow_store.samples(self._database, flow_id)

    async def edit(self, project_id: str, flow_id: UUID, operations: Sequence[bytes], seen_revision: int, edit_id: str) -> DraftRow:
        """Apply operations. An `edit_id` seen before changes nothing. Raises NotFound, Conflict DRAFT_STALE, Invalid OPERATION_INVALID."""
        before = await self._draft(project_id, flow_id)
        if edit_id and await self._seen(flow_id, edit_id):
            return before
        refuse_stale(before.flow, seen_revision)
        after = _applied(read_json(before.document), operations)
        checked = await self._checks.check(after)
        async with self._database.transaction() as connection:
            locked = await flow_store.lock_draft(connection, project_id, flow_id)
            if locked is None:
                raise flow_not_found(flow_id)
            if edit_id and await flow_store.edit_seen(connection, flow_id, edit_id):
                return locked
            refuse_stale(locked.flow, seen_revision)
            await flow_store.write_draft(
                connection, flow_id, after.name, write_json(after), checked.as_json(), checked.valid, now(self._clock)
            )
            if edit_id:
                await flow_store.note_edit(connection, flow_id, edit_id, seen_revision + 1)
        return await self._draft(project_id, flow_id)

    async def save_sample(self, project_id: str, flow_id: UUID, trigger_id: str, output: bytes) -> None:
        """Keep what a trigger received in a simulation. Raises NotFound."""
        await self._draft(project_id, flow_id)
        await flow_store.write_sample(self._database, flow_id, trigger_id, output, now(self._clock))

    async def _draft(self, project_id: str, flow_id: UUID) -> DraftRow:
        row = await flow_store.get_draft(self._database, project_id, flow_id)
        if row is None:
            raise flow_not_found(flow_id)
        return row

    async def _seen(self, flow_id: UUID, edit_id: str) -> bool:
        async with self._database.acquire() as connection:
            return await flow_store.edit_seen(connection, flow_id, edit_id)


def _applied(flow: Flow, operations: Sequence[bytes]) -> Flow:
    for index, encoded in enumerate(operations):
        try:
            flow = apply(flow, decode_operation(encoded))
        except OperationError as error:
            raise Invalid(
                "OPERATION_INVALID", f"Operation {index + 1} of {len(operations)} cannot be applied: {error.message}", operation=index
            ) from None
    return flow
