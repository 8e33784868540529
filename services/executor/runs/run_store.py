"""Statements that read runs.

Every list is a keyset page over run ids, newest first; live and finished runs together, in one snapshot.

Decides: which index each list uses. Leaves: writing runs to the flush, tokens of pages to runs.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from chassis.database import Database
from services.executor.store import RunStatus

_COLUMNS = (
    "run_id, flow_id, version_id, trigger_id, status, started_at, {finished_at}, {error}, {steps}, test, project_id"
)
_LIVE = _COLUMNS.format(
    finished_at="NULL::bigint AS finished_at", error="NULL::bytea AS error", steps="0 AS steps_finished"
)
_ENDED = _COLUMNS.format(finished_at="finished_at", error="error", steps="steps_finished")

# Index run_live_by_project and run_by_project (project_id, run_id DESC); with a flow, run_by_flow; without those that
# succeeded, run_failed. BETWEEN and not `=`, which would let PostgreSQL walk the primary key from the newest run and
# skip those of others: quick on average, and through the whole history for a project that was quiet for long.
_LIST = """SELECT * FROM (
    (SELECT {live} FROM executor.run_live WHERE project_id BETWEEN $1 AND $1 AND run_id < $2 {filter}
      ORDER BY project_id, run_id DESC LIMIT $3)
    UNION ALL
    (SELECT {ended} FROM executor.run WHERE project_id BETWEEN $1 AND $1 AND run_id < $2 {filter}
      ORDER BY project_id, run_id DESC LIMIT $3)
) AS r ORDER BY run_id DESC LIMIT $3"""
# Primary keys.
_ONE = f"""SELECT {_LIVE} FROM executor.run_live WHERE run_id = $1
    UNION ALL SELECT {_ENDED} FROM executor.run WHERE run_id = $1"""
# Primary key of the journal.
_JOURNAL = "SELECT entries FROM executor.journal WHERE run_id = $1 ORDER BY chunk_no LIMIT $2"
# Primary key of the journal.
_JOURNALS = (
    """SELECT run_id, entries FROM executor.journal WHERE run_id = ANY($1) ORDER BY run_id, chunk_no LIMIT 20000"""
)

FIRST = UUID(int=2**128 - 1)
"""Newer than every run."""
MAX_CHUNKS = 20_000


class RunRow(msgspec.Struct, frozen=True):
    """One run as it stands in its table. Times are milliseconds since 1970."""

    run_id: UUID
    flow_id: UUID
    version_id: UUID
    trigger_id: str
    status: RunStatus
    started_at_ms: int | None
    finished_at_ms: int | None
    error: bytes | None
    steps_finished: int
    test: bool
    project_id: UUID


class RunStore:
    """Reads runs from the executor's schema."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self, project_id: str, *, before: UUID | None, limit: int, flow_id: str = "", statuses: Sequence[int] = ()
    ) -> list[RunRow]:
        """Up to `limit` runs of a project, older than `before`, newest first."""
        arguments: list[Any] = [project_id, before or FIRST, limit]
        condition = ""
        if flow_id:
            arguments.append(flow_id)
            condition += f" AND flow_id = ${len(arguments)}"
        if statuses:
            arguments.append(list(statuses))
            condition += f" AND status = ANY(${len(arguments)}::smallint[])"
            if RunStatus.SUCCEEDED not in statuses:
                condition += " AND status <> 5"  # says to every plan, also a generic one, that run_failed will do
        statement = _LIST.format(live=_LIVE, ended=_ENDED, filter=condition)
        return [_row(row) for row in await self._database.fetch(statement, *arguments)]

    async def get(self, run_id: UUID) -> RunRow | None:
        """One run, whatever its project."""
        row = await self._database.fetchrow(_ONE, run_id)
        return _row(row) if row is not None else None

    async def chunks(self, run_id: UUID) -> list[bytes]:
        """The journal of a run, chunk by chunk."""
        return [row["entries"] for row in await self._database.fetch(_JOURNAL, run_id, MAX_CHUNKS)]

    async def chunks_of(self, run_ids: Sequence[UUID]) -> dict[UUID, list[bytes]]:
        """The journals of several runs."""
        found: dict[UUID, list[bytes]] = {}
        for row in await self._database.fetch(_JOURNALS, list(run_ids)):
            found.setdefault(row["run_id"], []).append(row["entries"])
        return found


def _row(row: Any) -> RunRow:
    values = tuple(row)
    return RunRow(*values[:4], RunStatus(values[4]), *values[5:])  # type: ignore[call-arg]  # as _COLUMNS has them
