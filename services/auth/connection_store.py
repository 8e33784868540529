"""The statements of connections. Every one is bound to one project.

Decides: that a sealed secret is read only to be resolved. Leaves: sealing and names to connections.py.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from chassis.database import Database
from chassis.errors import NotFound

# Unique index connection_by_name (project_id, name) decides who was first.
INSERT_CONNECTION = """INSERT INTO auth.connection (id, project_id, name, kind, sealed, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT (project_id, name) DO NOTHING RETURNING id"""
# Primary key connection_pkey (id).
GET_CONNECTION = """SELECT id, name, kind, created_at, updated_at FROM auth.connection
    WHERE id = $1 AND project_id = $2"""
# Index connection_by_project (project_id, id). Ids grow with time: newest first is id descending, a page a range.
LIST_CONNECTIONS = """SELECT id, name, kind, created_at, updated_at FROM auth.connection
    WHERE project_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3"""
# Primary key connection_pkey (id).
REPLACE_SECRET = """UPDATE auth.connection SET sealed = $3, updated_at = $4
    WHERE id = $1 AND project_id = $2 RETURNING id, name, kind, created_at, updated_at"""
# Primary key connection_pkey (id).
DELETE_CONNECTION = "DELETE FROM auth.connection WHERE id = $1 AND project_id = $2 RETURNING id"
# Unique index connection_by_name (project_id, name); as many rows as names, at most 100.
SEALED_BY_NAME = "SELECT id, name, kind, sealed FROM auth.connection WHERE project_id = $1 AND name = ANY($2)"


class Connection(msgspec.Struct, frozen=True):
    """A connection without its secret. `kind` is the number of `ConnectionKind`."""

    id: UUID
    name: str
    kind: int
    created_at: datetime
    updated_at: datetime


class SealedConnection(msgspec.Struct, frozen=True):
    """A connection's secret as it is stored."""

    id: UUID
    name: str
    kind: int
    sealed: bytes


async def insert(database: Database, project_id: UUID, new: Connection, sealed: bytes) -> bool:
    """Inserts a connection; False when its name is taken in the project. Raises: NotFound PROJECT_NOT_FOUND."""
    try:
        inserted = await database.fetchval(
            INSERT_CONNECTION, new.id, project_id, new.name, new.kind, sealed, new.created_at
        )
    except asyncpg.ForeignKeyViolationError:  # deleted while a token still names it
        raise NotFound("PROJECT_NOT_FOUND", f"There is no project {project_id} any more.") from None
    return inserted is not None


async def get(database: Database, project_id: UUID, connection_id: UUID) -> Connection | None:
    """One connection."""
    row = await database.fetchrow(GET_CONNECTION, connection_id, project_id)
    return None if row is None else _connection(row)


async def page(database: Database, project_id: UUID, before: UUID, limit: int) -> list[Connection]:
    """Connections older than an id, newest first."""
    return [_connection(row) for row in await database.fetch(LIST_CONNECTIONS, project_id, before, limit)]


async def replace_secret(
    database: Database, project_id: UUID, connection_id: UUID, sealed: bytes, at: datetime
) -> Connection | None:
    """Writes another secret; None when there is no such connection."""
    row = await database.fetchrow(REPLACE_SECRET, connection_id, project_id, sealed, at)
    return None if row is None else _connection(row)


async def delete(database: Database, project_id: UUID, connection_id: UUID) -> bool:
    """Deletes a connection; False when there is none."""
    return await database.fetchval(DELETE_CONNECTION, connection_id, project_id) is not None


async def sealed_by_name(database: Database, project_id: UUID, names: Sequence[str]) -> list[SealedConnection]:
    """The stored secrets of those names that exist."""
    rows = await database.fetch(SEALED_BY_NAME, project_id, list(names))
    return [SealedConnection(row["id"], row["name"], row["kind"], row["sealed"]) for row in rows]


def _connection(row: asyncpg.Record) -> Connection:
    return Connection(row["id"], row["name"], row["kind"], row["created_at"], row["updated_at"])
