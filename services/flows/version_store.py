"""The statements of versions. Documents are stored packed and are JSON on this side of the store.

Decides: that a version is never changed, and one frozen draft a revision. Leaves: when there is one to publishing.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec
from msgspec.structs import replace

from chassis.database import Database, Pooled
from chassis.documents import pack, unpack

_COLUMNS = "id, flow_id, project_id, number, revision, published_at, published_by"
_WITH_DOCUMENT = f"{_COLUMNS}, document"
# Unique index version_by_number: two publishers cannot take the same number.
INSERT = f"INSERT INTO flows.version ({_WITH_DOCUMENT}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
# Unique index version_frozen: the same revision is frozen once.
FREEZE = f"{INSERT} ON CONFLICT (flow_id, revision) WHERE number = 0 DO NOTHING"
GET_FROZEN = f"SELECT {_WITH_DOCUMENT} FROM flows.version WHERE flow_id = $1 AND revision = $2 AND number = 0"
# Primary key version_pkey (id).
GET = f"SELECT {_WITH_DOCUMENT} FROM flows.version WHERE id = $1 AND flow_id = $2 AND project_id = $3"
GET_SEVERAL = f"SELECT {_WITH_DOCUMENT} FROM flows.version WHERE id = ANY($1::uuid[])"
# Unique index version_by_number (flow_id, number): a page is a range of it.
LIST = f"""SELECT {_COLUMNS} FROM flows.version WHERE flow_id = $1 AND project_id = $2 AND number > 0 AND number < $3
    ORDER BY number DESC LIMIT $4"""
NEWEST = 2**31 - 1
"""Above every number: where a list that shows the newest first begins."""


class VersionRow(msgspec.Struct, frozen=True):
    """A version; `document` is JSON, empty in lists. `number` is 0 for a frozen draft."""

    id: UUID
    flow_id: UUID
    project_id: UUID
    number: int
    revision: int
    published_at: datetime
    published_by: str
    document: bytes = b""


async def insert(connection: Pooled, version: VersionRow) -> None:
    """Inserts a published version."""
    await connection.execute(INSERT, *_stored(version))


async def freeze(database: Database, version: VersionRow) -> None:
    """Inserts a frozen draft, unless its revision was frozen before."""
    await database.execute(FREEZE, *_stored(version))


async def get_frozen(database: Database, flow_id: UUID, revision: int) -> VersionRow | None:
    """The frozen draft of a revision."""
    return _version(await database.fetchrow(GET_FROZEN, flow_id, revision))


async def get(database: Database, project_id: str, flow_id: UUID, version_id: UUID) -> VersionRow | None:
    """One version, published or frozen."""
    return _version(await database.fetchrow(GET, version_id, flow_id, project_id))


async def several(database: Database, version_ids: Sequence[UUID]) -> list[VersionRow]:
    """Versions by id, whatever their project."""
    return [_read(row) for row in await database.fetch(GET_SEVERAL, version_ids)]


async def page(database: Database, project_id: str, flow_id: UUID, before: int, limit: int) -> list[VersionRow]:
    """Published versions of a flow below a number, newest first, without documents."""
    return [VersionRow(*row) for row in await database.fetch(LIST, flow_id, project_id, before, limit)]


def _stored(version: VersionRow) -> tuple[object, ...]:
    return (
        version.id,
        version.flow_id,
        version.project_id,
        version.number,
        version.revision,
        version.published_at,
        version.published_by,
        pack(version.document),
    )


def _read(row: asyncpg.Record) -> VersionRow:
    version = VersionRow(*row)
    return replace(version, document=unpack(version.document))


def _version(row: asyncpg.Record | None) -> VersionRow | None:
    return None if row is None else _read(row)
