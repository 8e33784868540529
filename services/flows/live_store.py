"""The statements behind what consumers see and tell: flows as they are to be live, and reports of what was applied.

Decides: which version is to be live in which state. Leaves: what follows from reports to publishing.py.
"""

from __future__ import annotations

from uuid import UUID

import asyncpg
import msgspec

from chassis.database import Database, Pooled
from chassis.documents import unpack
from services.flows.flow_store import COLUMN_COUNT, COLUMNS, FlowRow, State, storable

# What is to be live: while a flow is being enabled the version published last, else the one that is live.
_LIVE = f"""SELECT f.id, f.project_id, f.change_number, f.deleted_at IS NOT NULL AS deleted,
        f.state = {State.ENABLING:d} OR f.live_version_id IS NOT NULL AS enabled, v.id AS version_id, v.document
    FROM flows.flow f LEFT JOIN flows.version v ON v.id = CASE WHEN f.state = {State.ENABLING:d}
        THEN f.newest_version_id ELSE coalesce(f.live_version_id, f.newest_version_id) END"""
# Primary keys flow_pkey, version_pkey.
GET = f"{_LIVE} WHERE f.id = $1"
# Index flow_live (id), then version_pkey.
LIST = f"""{_LIVE} WHERE (f.state = {State.ENABLING:d} OR f.live_version_id IS NOT NULL) AND f.id > $1
    ORDER BY f.id LIMIT $2"""
# Primary key applied_pkey (flow_id, consumer); only a report as new or newer counts.
REPORT = """INSERT INTO flows.applied (flow_id, consumer, change_number, failure) VALUES ($1, $2, $3, $4)
    ON CONFLICT (flow_id, consumer) DO UPDATE SET change_number = excluded.change_number, failure = excluded.failure
    WHERE flows.applied.change_number <= excluded.change_number"""
REPORTS = "SELECT consumer, failure FROM flows.applied WHERE flow_id = $1 AND change_number = $2 LIMIT 10"
# A flow, and who has reported on its last change. Primary keys flow_pkey, applied_pkey.
PROGRESS = f"""SELECT {COLUMNS}, ARRAY(SELECT a.consumer FROM flows.applied a WHERE a.flow_id = flow.id
    AND a.change_number = flow.change_number LIMIT 10) AS applied FROM flows.flow WHERE id = $1"""


class LiveRow(msgspec.Struct, frozen=True):
    """A flow as its consumers see it; `document` is JSON, empty when the flow was never published."""

    flow_id: UUID
    project_id: UUID
    change_number: int
    deleted: bool
    enabled: bool
    version_id: UUID | None
    document: bytes


async def get(database: Database, flow_id: UUID) -> LiveRow | None:
    """One flow, live or not, also when deleted."""
    row = await database.fetchrow(GET, flow_id)
    return None if row is None else _live(row)


async def page(database: Database, after: UUID, limit: int, room_bytes: int) -> tuple[list[LiveRow], bool]:
    """Flows that are live or on their way to be, by id, and whether more follow.

    Fewer than asked for when their documents would exceed the room; one at least.
    """
    found: list[LiveRow] = []
    rows = await database.fetch(LIST, after, limit + 1)
    for row in rows[:limit]:
        live = _live(row)
        room_bytes -= len(live.document)
        if found and room_bytes < 0:
            break
        found.append(live)
    return found, len(rows) > len(found)


async def report(connection: Pooled, flow_id: UUID, consumer: str, change_number: int, failure: str) -> None:
    """Keeps the newest report of a consumer about a flow."""
    await connection.execute(REPORT, flow_id, storable(consumer), change_number, storable(failure))


async def reports(connection: Pooled, flow_id: UUID, change_number: int) -> dict[str, str]:
    """Failure (empty: applied) by consumer, for one change of a flow."""
    return {row["consumer"]: row["failure"] for row in await connection.fetch(REPORTS, flow_id, change_number)}


async def progress(database: Database, flow_id: UUID) -> tuple[FlowRow, frozenset[str]] | None:
    """A flow, also when deleted, and the consumers that have reported on its last change."""
    row = await database.fetchrow(PROGRESS, flow_id)
    return None if row is None else (FlowRow(*row[:COLUMN_COUNT]), frozenset(row["applied"]))


def _live(row: asyncpg.Record) -> LiveRow:
    document = b"" if row["document"] is None else unpack(row["document"])
    return LiveRow(
        flow_id=row["id"],
        project_id=row["project_id"],
        change_number=row["change_number"],
        deleted=row["deleted"],
        enabled=row["enabled"],
        version_id=row["version_id"],
        document=document,
    )
