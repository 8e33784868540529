"""Edits of drafts: operations on the revision that their author saw, all or none, safe to repeat.

Decides: a change is computed on the draft as it was read and written only if nobody was faster (compare and set in
draft_store.py), so no edit is lost and none is applied to a draft that its author has not seen.
Leaves: what operations do to flowlang/operations.py, what is wrong with the outcome to checks.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NoReturn
from uuid import UUID

from chassis.clock import Clock
from chassis.database import Database, Pooled
from flowlang.documents import read_json
from flowlang.model import Flow
from flowlang.operations import OperationError, apply_all, decode_operation
from services.flows import draft_store, flow_store
from services.flows.checks import Checks
from services.flows.draft_store import DraftRow, SampleRow
from services.flows.flow_store import now
from services.flows.refusals import draft_stale, flow_not_found, operation_invalid, operations_too_large

MAX_OPERATIONS_BYTES = 1024 * 1024
_INLINE_BYTES = 32 * 1024
"""Above this, document and operations together, the work is done in a thread, as in checks.py. Measured: 200 operations
on 24 KB take 15 ms, on 700 KB 330 ms."""


class Drafts:
    """The drafts of all flows."""

    def __init__(self, database: Database, checks: Checks, clock: Clock) -> None:
        self._database = database
        self._checks = checks
        self._clock = clock

    async def get(self, project_id: str, flow_id: UUID) -> DraftRow:
        """One flow with its draft. Raises NotFound FLOW_NOT_FOUND."""
        row = await draft_store.get(self._database, project_id, flow_id)
        if row is None:
            raise flow_not_found(flow_id)
        return row

    async def read(self, project_id: str, flow_id: UUID) -> tuple[DraftRow, Sequence[SampleRow]]:
        """A draft and the samples of its triggers. Raises NotFound FLOW_NOT_FOUND."""
        return await self.get(project_id, flow_id), await draft_store.samples(self._database, flow_id)

    async def edit(
        self, project_id: str, flow_id: UUID, operations: Sequence[bytes], seen_revision: int, edit_id: str
    ) -> DraftRow:
        """Apply operations; an `edit_id` seen before changes nothing.

        Raises NotFound FLOW_NOT_FOUND, Conflict DRAFT_STALE, Invalid OPERATION_INVALID, TooLarge OPERATIONS_TOO_LARGE.
        """
        size = sum(map(len, operations))
        if size > MAX_OPERATIONS_BYTES:
            raise operations_too_large(MAX_OPERATIONS_BYTES)
        before = await self.get(project_id, flow_id)
        moved_on = before.flow.draft_revision != seen_revision
        # Asked after the draft was read: if it was this edit that moved it on, then it is found.
        if moved_on and edit_id and await draft_store.edit_seen(self._database, flow_id, edit_id):
            return await self.get(project_id, flow_id)
        refuse_stale(flow_id, seen_revision, before.flow.draft_revision)
        if size + len(before.document) > _INLINE_BYTES:
            flow = await asyncio.to_thread(_applied, before.document, operations)
        else:
            flow = _applied(before.document, operations)
        return await self.replace(project_id, flow_id, flow, seen_revision, edit_id)

    async def replace(
        self, project_id: str, flow_id: UUID, flow: Flow, seen_revision: int, edit_id: str = ""
    ) -> DraftRow:
        """Make a document the draft, if that is still at the revision seen (0: whatever it is at).

        Raises NotFound FLOW_NOT_FOUND, Conflict DRAFT_STALE.
        """
        draft = (await self._checks.check(flow)).draft()
        async with self._database.transaction() as connection:
            if edit_id and not await draft_store.note_edit(connection, flow_id, edit_id, seen_revision + 1):
                return await draft_store.get(connection, project_id, flow_id) or await self.get(project_id, flow_id)
            row = await draft_store.write(connection, project_id, flow_id, seen_revision, draft, now(self._clock))
            if row is None:
                await _refuse(connection, project_id, flow_id, seen_revision)
        return row

    async def save_sample(self, project_id: str, flow_id: UUID, trigger_id: str, output: bytes) -> None:
        """Keep what a trigger received in a simulation. Raises NotFound FLOW_NOT_FOUND."""
        if await flow_store.get(self._database, project_id, flow_id) is None:
            raise flow_not_found(flow_id)
        await draft_store.write_sample(self._database, flow_id, trigger_id, output, now(self._clock))


def refuse_stale(flow_id: UUID, seen_revision: int, current_revision: int) -> None:
    """Raise Conflict DRAFT_STALE when the draft moved on since the caller saw it; 0 accepts whatever is there."""
    if seen_revision not in (0, current_revision):
        raise draft_stale(flow_id, seen_revision, current_revision)


async def _refuse(connection: Pooled, project_id: str, flow_id: UUID, seen_revision: int) -> NoReturn:
    """Say why a draft could not be written. Raising undoes the transaction."""
    flow = await flow_store.get(connection, project_id, flow_id)
    if flow is None:
        raise flow_not_found(flow_id)
    raise draft_stale(flow_id, seen_revision, flow.draft_revision)


def _applied(document: bytes, operations: Sequence[bytes]) -> Flow:
    try:
        decoded = [decode_operation(data, index) for index, data in enumerate(operations)]
        return apply_all(read_json(document), decoded)
    except OperationError as error:
        raise operation_invalid(error, len(operations)) from None
