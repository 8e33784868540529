"""The statements of drafts: documents, the edits that were applied, and samples of triggers.

Decides: that a draft is written only on the revision it was made from (compare and set), that documents are stored
packed. Documents and faults are JSON on this side of the store.
Leaves: what an edit is and what a fault is to drafts.py and checks.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from chassis.database import Database, Pooled
from chassis.documents import pack, unpack
from services.flows.flow_store import COLUMN_COUNT, COLUMNS, FlowRow, storable

INSERT = f"""INSERT INTO flows.flow (id, project_id, name, draft, draft_faults, draft_valid, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $7) RETURNING {COLUMNS}"""
# Primary key flow_pkey (id).
GET = f"""SELECT {COLUMNS}, draft, draft_faults FROM flows.flow
    WHERE id = $1 AND project_id = $2 AND deleted_at IS NULL"""
GET_ANY = f"SELECT {COLUMNS}, draft, draft_faults FROM flows.flow WHERE id = $1 AND deleted_at IS NULL"
# Of two writers on one revision the second waits for the row, finds it changed, and writes nothing.
WRITE = f"""UPDATE flows.flow SET name = $4, draft = $5, draft_faults = $6, draft_valid = $7, updated_at = $8,
    draft_revision = draft_revision + 1
    WHERE id = $1 AND project_id = $2 AND deleted_at IS NULL AND ($3::bigint = 0 OR draft_revision = $3)
    RETURNING {COLUMNS}"""
# Primary key edit_pkey (flow_id, edit_id). Two calls with one edit id: the second waits here for the first.
FIND_EDIT = "SELECT revision FROM flows.edit WHERE flow_id = $1 AND edit_id = $2"
NOTE_EDIT = """INSERT INTO flows.edit (flow_id, edit_id, revision) VALUES ($1, $2, $3)
    ON CONFLICT (flow_id, edit_id) DO NOTHING RETURNING revision"""
FORGET_EDITS = "DELETE FROM flows.edit WHERE flow_id = $1 AND revision <= $2"
# Primary key sample_pkey (flow_id, trigger_id).
WRITE_SAMPLE = """INSERT INTO flows.sample (flow_id, trigger_id, output, captured_at) VALUES ($1, $2, $3, $4)
    ON CONFLICT (flow_id, trigger_id) DO UPDATE SET output = excluded.output, captured_at = excluded.captured_at
    WHERE flows.sample.captured_at <= excluded.captured_at"""
FORGET_SAMPLES = """DELETE FROM flows.sample WHERE flow_id = $1 AND trigger_id IN
    (SELECT trigger_id FROM flows.sample WHERE flow_id = $1 ORDER BY captured_at DESC OFFSET $2)"""
LIST_SAMPLES = """SELECT trigger_id, output, captured_at FROM flows.sample WHERE flow_id = $1
    ORDER BY captured_at DESC LIMIT 20"""
DELETE_EDITS = "DELETE FROM flows.edit WHERE flow_id = $1"
DELETE_SAMPLES = "DELETE FROM flows.sample WHERE flow_id = $1"

EDITS_KEPT = 200
"""How many revisions back the id of an edit is known; no client repeats an edit later than that."""
SAMPLES_KEPT = 20
"""Of how many triggers a flow keeps the sample: those captured last. Triggers that are gone leave by that."""
SAMPLES_SHOWN_BYTES = 8 * 1024 * 1024
"""What the samples beside a draft may have together; a message may have 16 MiB."""


class NewDraft(msgspec.Struct, frozen=True):
    """What is to be written; `document` and `faults` are JSON."""

    name: str
    document: bytes
    faults: bytes
    valid: bool


class DraftRow(msgspec.Struct, frozen=True):
    """A flow with its draft; `document` and `faults` are JSON."""

    flow: FlowRow
    document: bytes
    faults: bytes


class SampleRow(msgspec.Struct, frozen=True):
    """What a trigger received when it was last simulated; `output` is JSON."""

    trigger_id: str
    output: bytes
    captured_at: datetime


async def insert(database: Database, flow_id: UUID, project_id: str, draft: NewDraft, at: datetime) -> DraftRow:
    """Inserts a flow with its first draft."""
    row = await database.fetchrow(INSERT, flow_id, project_id, *_stored(draft), at)
    assert row is not None  # noqa: S101 - an insert with RETURNING always answers
    return DraftRow(FlowRow(*row), draft.document, draft.faults)


async def get(database: Database | Pooled, project_id: str, flow_id: UUID) -> DraftRow | None:
    """One flow with its draft."""
    return _draft(await database.fetchrow(GET, flow_id, project_id))


async def get_any(database: Database, flow_id: UUID) -> DraftRow | None:
    """One flow with its draft, whatever its project: for other services."""
    return _draft(await database.fetchrow(GET_ANY, flow_id))


async def write(
    connection: Pooled, project_id: str, flow_id: UUID, seen_revision: int, draft: NewDraft, at: datetime
) -> DraftRow | None:
    """Replaces the draft if it is still at the revision seen (0: whatever it is at); None when it is not."""
    row = await connection.fetchrow(WRITE, flow_id, project_id, seen_revision, *_stored(draft), at)
    return None if row is None else DraftRow(FlowRow(*row), draft.document, draft.faults)


async def edit_seen(database: Database, flow_id: UUID, edit_id: str) -> bool:
    """Whether an edit was applied before."""
    return await database.fetchval(FIND_EDIT, flow_id, edit_id.encode()) is not None


async def note_edit(connection: Pooled, flow_id: UUID, edit_id: str, revision: int) -> bool:
    """Remembers an edit; False when it was applied before."""
    if await connection.fetchval(NOTE_EDIT, flow_id, edit_id.encode(), revision) is None:
        return False
    await connection.execute(FORGET_EDITS, flow_id, revision - EDITS_KEPT)
    return True


async def write_sample(database: Database, flow_id: UUID, trigger_id: str, output: bytes, at: datetime) -> None:
    """Keeps the newest sample of a trigger."""
    async with database.transaction() as connection:
        await connection.execute(WRITE_SAMPLE, flow_id, storable(trigger_id), pack(output), at)
        await connection.execute(FORGET_SAMPLES, flow_id, SAMPLES_KEPT)


async def samples(database: Database, flow_id: UUID) -> Sequence[SampleRow]:
    """The newest sample of each trigger, newest first, as many as may be shown together."""
    found, room = [], SAMPLES_SHOWN_BYTES
    for row in await database.fetch(LIST_SAMPLES, flow_id):
        sample = SampleRow(row["trigger_id"], unpack(row["output"]), row["captured_at"])
        room -= len(sample.output)
        if room < 0:
            break
        found.append(sample)
    return found


async def forget(connection: Pooled, flow_id: UUID) -> None:
    """Deletes what only a draft needs, for a flow that is deleted."""
    await connection.execute(DELETE_EDITS, flow_id)
    await connection.execute(DELETE_SAMPLES, flow_id)


def _stored(draft: NewDraft) -> tuple[str, bytes, bytes, bool]:
    return storable(draft.name), pack(draft.document), pack(draft.faults), draft.valid


def _draft(row: asyncpg.Record | None) -> DraftRow | None:
    if row is None:
        return None
    return DraftRow(FlowRow(*row[:COLUMN_COUNT]), unpack(row["draft"]), unpack(row["draft_faults"]))
