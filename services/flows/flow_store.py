"""The statements of flows and their drafts. Every statement for people is bound to one project."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from chassis.database import Database, Pooled

_FLOW = """id, project_id, name, state, failure, change_number, live_version_id, live_number, next_version_id, last_number,
    draft_revision, draft_valid, created_at, updated_at"""
_WITH_DRAFT = f"{_FLOW}, draft, draft_faults"

INSERT = """INSERT INTO flows.flow (id, project_id, name, draft, draft_faults, draft_valid, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $7)"""
# Primary key flow_pkey (id).
GET = f"SELECT {_FLOW} FROM flows.flow WHERE id = $1 AND project_id = $2 AND deleted_at IS NULL"
GET_DRAFT = f"SELECT {_WITH_DRAFT} FROM flows.flow WHERE id = $1 AND project_id = $2 AND deleted_at IS NULL"
LOCK_DRAFT = GET_DRAFT + " FOR UPDATE"
# For other services, which know no project: also flows that were deleted.
GET_ANY = f"SELECT {_WITH_DRAFT}, deleted_at IS NOT NULL AS deleted FROM flows.flow WHERE id = $1"
LOCK_ANY = GET_ANY + " FOR UPDATE"
# Index flow_by_project (project_id, id DESC): a page is a range of it.
LIST = f"""SELECT {_FLOW} FROM flows.flow WHERE project_id = $1 AND id < $2 AND deleted_at IS NULL
    ORDER BY id DESC LIMIT $3"""
LIST_NAMED = f"""SELECT {_FLOW} FROM flows.flow WHERE project_id = $1 AND id < $2 AND deleted_at IS NULL
    AND position(lower($4) IN lower(name)) > 0 ORDER BY id DESC LIMIT $3"""
# Index flow_live (id).
LIST_LIVE = """SELECT id FROM flows.flow WHERE state IN (2, 3, 4) AND deleted_at IS NULL AND id > $1 ORDER BY id LIMIT $2"""
WRITE_DRAFT = """UPDATE flows.flow SET name = $2, draft = $3, draft_faults = $4, draft_valid = $5,
    draft_revision = draft_revision + 1, updated_at = $6 WHERE id = $1"""
WRITE_STATE = """UPDATE flows.flow SET state = $2, failure = $3, change_number = $4, live_version_id = $5, live_number = $6,
    next_version_id = $7, last_number = $8, updated_at = $9 WHERE id = $1"""
DELETE = "UPDATE flows.flow SET deleted_at = $2, state = 1, change_number = change_number + 1, updated_at = $2 WHERE id = $1"
# Primary key edit_pkey; the oldest leave once there are more than a client could still repeat.
FIND_EDIT = "SELECT revision FROM flows.edit WHERE flow_id = $1 AND edit_id = $2"
NOTE_EDIT = "INSERT INTO flows.edit (flow_id, edit_id, revision) VALUES ($1, $2, $3)"
FORGET_EDITS = "DELETE FROM flows.edit WHERE flow_id = $1 AND revision < $2"
# Primary key sample_pkey; a flow has at most as many samples as triggers.
WRITE_SAMPLE = """INSERT INTO flows.sample (flow_id, trigger_id, output, captured_at) VALUES ($1, $2, $3, $4)
    ON CONFLICT (flow_id, trigger_id) DO UPDATE SET output = excluded.output, captured_at = excluded.captured_at"""
LIST_SAMPLES = "SELECT trigger_id, output, captured_at FROM flows.sample WHERE flow_id = $1 ORDER BY trigger_id LIMIT 100"

EDITS_KEPT = 200
NEWEST = UUID(int=2**128 - 1)


class FlowRow(msgspec.Struct, frozen=True):
    """A flow without its document. `state` is the number of `FlowState`."""

    id: UUID
    project_id: UUID
    name: str
    state: int
    failure: str
    change_number: int
    live_version_id: UUID | None
    live_number: int
    next_version_id: UUID | None
    last_number: int
    draft_revision: int
    draft_valid: bool
    created_at: datetime
    updated_at: datetime


class DraftRow(msgspec.Struct, frozen=True):
    """A flow with its draft; `document` and `faults` are JSON."""

    flow: FlowRow
    document: bytes
    faults: bytes
    deleted: bool = False


class SampleRow(msgspec.Struct, frozen=True):
    """What a trigger received when it was last simulated; `output` is JSON."""

    trigger_id: str
    output: bytes
    captured_at: datetime


async def insert(
    connection: Database | Pooled, flow_id: UUID, project_id: str, name: str, document: bytes, faults: bytes, valid: bool, at: datetime
) -> None:
    """Inserts a flow with its first draft."""
    await connection.execute(INSERT, flow_id, project_id, name, document, faults, valid, at)


async def get(database: Database, project_id: str, flow_id: UUID) -> FlowRow | None:
    """One flow."""
    row = await database.fetchrow(GET, flow_id, project_id)
    return None if row is None else FlowRow(*row)


async def get_draft(database: Database, project_id: str, flow_id: UUID) -> DraftRow | None:
    """One flow with its draft."""
    return _draft(await database.fetchrow(GET_DRAFT, flow_id, project_id))


async def lock_draft(connection: Pooled, project_id: str, flow_id: UUID) -> DraftRow | None:
    """One flow with its draft, locked until the transaction ends."""
    return _draft(await connection.fetchrow(LOCK_DRAFT, flow_id, project_id))


async def get_any(database: Database, flow_id: UUID) -> DraftRow | None:
    """One flow with its draft, whatever its project, also when deleted."""
    return _draft(await database.fetchrow(GET_ANY, flow_id))


async def lock_any(connection: Pooled, flow_id: UUID) -> DraftRow | None:
    """As `get_any`, locked until the transaction ends."""
    return _draft(await connection.fetchrow(LOCK_ANY, flow_id))


async def page(database: Database, project_id: str, before: UUID | None, limit: int, name_contains: str) -> list[FlowRow]:
    """Flows older than an id, newest first."""
    if name_contains:
        rows = await database.fetch(LIST_NAMED, project_id, before or NEWEST, limit, name_contains)
    else:
        rows = await database.fetch(LIST, project_id, before or NEWEST, limit)
    return [FlowRow(*row) for row in rows]


async def live_ids(database: Database, after: UUID | None, limit: int) -> list[UUID]:
    """Ids of flows that are live or on their way to be, after an id, in order."""
    return [row["id"] for row in await database.fetch(LIST_LIVE, after or UUID(int=0), limit)]


async def write_draft(connection: Pooled, flow_id: UUID, name: str, document: bytes, faults: bytes, valid: bool, at: datetime) -> None:
    """Replaces the draft; its revision grows by one."""
    await connection.execute(WRITE_DRAFT, flow_id, name, document, faults, valid, at)


async def write_state(connection: Pooled, flow: FlowRow, at: datetime) -> None:
    """Writes where a flow stands between draft and live."""
    await connection.execute(
        WRITE_STATE,
        flow.id,
        flow.state,
        flow.failure,
        flow.change_number,
        flow.live_version_id,
        flow.live_number,
        flow.next_version_id,
        flow.last_number,
        at,
    )


async def delete(connection: Pooled, flow_id: UUID, at: datetime) -> None:
    """Marks a flow deleted; its versions stay for its runs."""
    await connection.execute(DELETE, flow_id, at)


async def edit_seen(connection: Pooled, flow_id: UUID, edit_id: str) -> bool:
    """Whether an edit was applied before."""
    return await connection.fetchval(FIND_EDIT, flow_id, edit_id) is not None


async def note_edit(connection: Pooled, flow_id: UUID, edit_id: str, revision: int) -> None:
    """Remembers an edit."""
    await connection.execute(NOTE_EDIT, flow_id, edit_id, revision)
    await connection.execute(FORGET_EDITS, flow_id, revision - EDITS_KEPT)


async def write_sample(database: Database, flow_id: UUID, trigger_id: str, output: bytes, at: datetime) -> None:
    """Keeps the newest sample of a trigger."""
    await database.execute(WRITE_SAMPLE, flow_id, trigger_id, output, at)


async def samples(database: Database, flow_id: UUID) -> Sequence[SampleRow]:
    """The newest sample of each trigger."""
    return [SampleRow(*row) for row in await database.fetch(LIST_SAMPLES, flow_id)]


def _draft(row: asyncpg.Record | None) -> DraftRow | None:
    if row is None:
        return None
    values: Sequence[Any] = tuple(row)
    return DraftRow(FlowRow(*values[:14]), *values[14:])
