"""The statements of versions and of consumers' reports."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from chassis.database import Database, Pooled

_VERSION = "id, flow_id, project_id, number, revision, document, published_at, published_by"
# Unique index version_by_number: two publishers cannot take the same number.
INSERT = f"INSERT INTO flows.version ({_VERSION}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
# Unique index version_frozen: the same revision is frozen once.
FREEZE = f"""INSERT INTO flows.version ({_VERSION}) VALUES ($1, $2, $3, 0, $4, $5, $6, '')
    ON CONFLICT (flow_id, revision) WHERE number = 0 DO UPDATE SET published_by = '' RETURNING {_VERSION}"""
# Primary key version_pkey (id).
GET = f"SELECT {_VERSION} FROM flows.version WHERE id = $1 AND flow_id = $2 AND project_id = $3"
GET_SEVERAL = f"SELECT {_VERSION} FROM flows.version WHERE id = ANY($1::uuid[])"
# Index version_by_number (flow_id, number); documents are left out of lists.
LIST = """SELECT id, flow_id, project_id, number, revision, ''::bytea, published_at, published_by FROM flows.version
    WHERE flow_id = $1 AND project_id = $2 AND number > 0 AND id < $3 ORDER BY id DESC LIMIT $4"""
# Primary key applied_pkey; only a newer report counts.
REPORT = """INSERT INTO flows.applied (flow_id, consumer, change_number, failure) VALUES ($1, $2, $3, $4)
    ON CONFLICT (flow_id, consumer) DO UPDATE SET change_number = excluded.change_number, failure = excluded.failure
    WHERE flows.applied.change_number <= excluded.change_number"""
REPORTS = "SELECT consumer, failure FROM flows.applied WHERE flow_id = $1 AND change_number = $2 LIMIT 10"


class VersionRow(msgspec.Struct, frozen=True):
    """A version; `document` is JSON, empty in lists. `number` is 0 for a frozen draft."""

    id: UUID
    flow_id: UUID
    project_id: UUID
    number: int
    revision: int
    document: bytes
    published_at: datetime
    published_by: str


async def insert(connection: Pooled, version: VersionRow) -> None:
    """Inserts a published version."""
    await connection.execute(
        INSERT,
        version.id,
        version.flow_id,
        version.project_id,
        version.number,
        version.revision,
        version.document,
        version.published_at,
        version.published_by,
    )


async def freeze(database: Database, version: VersionRow) -> VersionRow:
    """Inserts a frozen draft, or finds the one of the same revision."""
    row = await database.fetchrow(
        FREEZE, version.id, version.flow_id, version.project_id, version.revision, version.document, version.published_at
    )
    assert row is not None  # noqa: S101 - an upsert with RETURNING always answers
    return VersionRow(*row)


async def get(database: Database, project_id: str, flow_id: UUID, version_id: UUID) -> VersionRow | None:
    """One version."""
    row = await database.fetchrow(GET, version_id, flow_id, project_id)
    return None if row is None else VersionRow(*row)


async def several(database: Database, version_ids: Sequence[UUID]) -> list[VersionRow]:
    """Versions by id, whatever their project."""
    return [VersionRow(*row) for row in await database.fetch(GET_SEVERAL, version_ids)]


async def page(database: Database, project_id: str, flow_id: UUID, before: UUID, limit: int) -> list[VersionRow]:
    """Versions of a flow older than an id, newest first, without documents."""
    return [VersionRow(*row) for row in await database.fetch(LIST, flow_id, project_id, before, limit)]


async def report(connection: Pooled, flow_id: UUID, consumer: str, change_number: int, failure: str) -> None:
    """Keeps the newest report of a consumer about a flow."""
    await connection.execute(REPORT, flow_id, consumer, change_number, failure)


async def reports(connection: Pooled, flow_id: UUID, change_number: int) -> dict[str, str]:
    """Failure (empty: applied) by consumer, for one change of a flow."""
    return {row["consumer"]: row["failure"] for row in await connection.fetch(REPORTS, flow_id, change_number)}
