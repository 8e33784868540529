"""The statements of flows, without their documents. Every statement for people is bound to one project.

Decides: the columns of a flow and which index each list uses. Leaves: what a state means to publishing.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import IntEnum
from typing import cast
from uuid import UUID

import asyncpg
import msgspec

from chassis.clock import Clock
from chassis.database import Database, Pooled

COLUMNS = """id, project_id, name, state, failure, change_number, live_version_id, live_number,
    newest_version_id, newest_number, draft_revision, draft_valid, created_at, updated_at"""
COLUMN_COUNT = 14
_SHOWN = """id, name, state, live_version_id, live_number, draft_revision, draft_valid, failure,
    created_at, updated_at"""

# Primary key flow_pkey (id).
GET = f"SELECT {COLUMNS} FROM flows.flow WHERE id = $1 AND project_id = $2 AND deleted_at IS NULL"
LOCK = f"{GET} FOR NO KEY UPDATE"
# Consumers know no project, and report on flows that were deleted.
LOCK_ANY = f"SELECT {COLUMNS} FROM flows.flow WHERE id = $1 FOR NO KEY UPDATE"
# Index flow_by_project (project_id, id DESC): a page is a range of it.
LIST = f"""SELECT {_SHOWN} FROM flows.flow WHERE project_id = $1 AND id < $2 AND deleted_at IS NULL
    ORDER BY id DESC LIMIT $3"""
LIST_NAMED = f"""SELECT {_SHOWN} FROM flows.flow WHERE project_id = $1 AND id < $2 AND deleted_at IS NULL
    AND position(lower($4) IN lower(name)) > 0 ORDER BY id DESC LIMIT $3"""
WRITE_STATE = """UPDATE flows.flow SET state = $2, failure = $3, change_number = $4, live_version_id = $5,
    live_number = $6, newest_version_id = $7, newest_number = $8, updated_at = $9 WHERE id = $1"""
MARK_DELETED = "UPDATE flows.flow SET deleted_at = $2 WHERE id = $1"

NEWEST = UUID(int=2**128 - 1)
"""Above every id: where a list that shows the newest first begins."""


class State(IntEnum):
    """Where a flow stands between draft and live; the numbers of the wire's `FlowState`."""

    DISABLED = 1
    ENABLING = 2
    ENABLED = 3
    ENABLE_FAILED = 4


Shown = tuple[UUID, str, int, UUID | None, int, int, bool, str, datetime, datetime]


class FlowRow(msgspec.Struct, frozen=True):
    """A flow without its document. `live`: what is live now; `newest`: what was published last, live or not."""

    id: UUID
    project_id: UUID
    name: str
    state: int
    failure: str
    change_number: int
    live_version_id: UUID | None
    live_number: int
    newest_version_id: UUID | None
    newest_number: int
    draft_revision: int
    draft_valid: bool
    created_at: datetime
    updated_at: datetime

    @property
    def shown(self) -> Shown:
        """What people see of it, in the order of the list's columns."""
        return (
            self.id,
            self.name,
            self.state,
            self.live_version_id,
            self.live_number,
            self.draft_revision,
            self.draft_valid,
            self.failure,
            self.created_at,
            self.updated_at,
        )


def now(clock: Clock) -> datetime:
    """The time as it is stored."""
    return datetime.fromtimestamp(clock.now_ms() / 1000, UTC)


def storable(text: str) -> str:
    """A text without what PostgreSQL refuses inside one."""
    return text.replace("\0", "")


async def get(database: Database | Pooled, project_id: str, flow_id: UUID) -> FlowRow | None:
    """One flow."""
    return _flow(await database.fetchrow(GET, flow_id, project_id))


async def lock(connection: Pooled, project_id: str, flow_id: UUID) -> FlowRow | None:
    """One flow, locked until the transaction ends."""
    return _flow(await connection.fetchrow(LOCK, flow_id, project_id))


async def lock_any(connection: Pooled, flow_id: UUID) -> FlowRow | None:
    """One flow, whatever its project, also when deleted, locked until the transaction ends."""
    return _flow(await connection.fetchrow(LOCK_ANY, flow_id))


async def page(
    database: Database, project_id: str, before: UUID | None, limit: int, name_contains: str
) -> Sequence[Shown]:
    """Flows older than an id, newest first: of each what `FlowRow.shown` holds."""
    if name_contains:
        rows = await database.fetch(LIST_NAMED, project_id, before or NEWEST, limit, name_contains)
    else:
        rows = await database.fetch(LIST, project_id, before or NEWEST, limit)
    return cast(Sequence[Shown], rows)  # a Record is a tuple of its columns


async def write_state(connection: Pooled, flow: FlowRow, at: datetime) -> None:
    """Writes where a flow stands between draft and live."""
    await connection.execute(
        WRITE_STATE,
        flow.id,
        int(flow.state),
        storable(flow.failure),
        flow.change_number,
        flow.live_version_id,
        flow.live_number,
        flow.newest_version_id,
        flow.newest_number,
        at,
    )


async def mark_deleted(connection: Pooled, flow_id: UUID, at: datetime) -> None:
    """Takes a flow out of sight; it and its versions stay for its runs."""
    await connection.execute(MARK_DELETED, flow_id, at)


def _flow(row: asyncpg.Record | None) -> FlowRow | None:
    return None if row is None else FlowRow(*row)
