"""The heart's statements on PostgreSQL. The flush and the claim are functions of the schema (migrations/*.sql).

Decides: how a batch becomes arrays, and how SQL errors become the few failures the heart knows.
Leaves: when to flush, claim and take over to flush.py, dispatch.py and recovery.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg

from chassis.database import Database
from services.executor.store import (
    Beat,
    Claim,
    ClaimedRun,
    Fenced,
    FlushBatch,
    FlushRefused,
    Position,
    PositionMoved,
    RunIdentity,
    StoreKey,
)

FLUSH = "SELECT executor.flush_v1(" + ", ".join(f"${n}" for n in range(1, 34)) + ")"
CLAIM = "SELECT * FROM executor.claim_v1($1, $2, $3, $4, $5, $6)"
# Primary key of the journal; the runs were just claimed, so nobody else appends.
CHUNKS = "SELECT run_id, entries FROM executor.journal WHERE run_id = ANY($1) ORDER BY run_id, chunk_no"
BEGIN = "INSERT INTO executor.incarnation (name) VALUES ($1) RETURNING epoch"
LAST_FLUSH = "SELECT flush_no, rejected FROM executor.incarnation WHERE epoch = $1 AND alive"
BEATS = "SELECT epoch, beat FROM executor.incarnation WHERE alive ORDER BY epoch LIMIT 1000"
TAKE_OVER = "SELECT executor.take_over_v1($1, $2)"
HAND_OVER = "SELECT executor.hand_over_v1($1)"
POSITIONS = "SELECT partition, log_epoch, next_offset FROM executor.position WHERE topic = $1 LIMIT 1000"
ADD_POSITION = """INSERT INTO executor.position (topic, partition, log_epoch, next_offset) VALUES ($1, $2, $3, $4)
    ON CONFLICT DO NOTHING"""
RENEW_POSITION = """UPDATE executor.position SET log_epoch = $3, next_offset = $4
    WHERE topic = $1 AND partition = $2 AND log_epoch = $5 AND next_offset = $6"""
# The name of a partition ends with the day it begins on.
OLDEST = """SELECT extract(epoch FROM min(to_date(right(c.relname, 8), 'YYYYMMDD')))::bigint * 1000
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'executor.run'::regclass"""
PREPARE = "SELECT executor.ensure_partitions_v1(0, $1)"
# Advisory, because a key that holds nothing has no row to lock; sorted, so that two flushes cannot wait for each other.
# Who stands still with these locks would stop the flushes of others: the server ends that after 2 s, a lease.
LOCK_KEYS = """SELECT set_config('idle_in_transaction_session_timeout', '2000', true), pg_advisory_xact_lock(h) FROM
    (SELECT DISTINCT hashtextextended(concat_ws('/', p, s, k), 77) AS h
       FROM unnest($1::uuid[], $2::text[], $3::text[]) AS t (p, s, k) ORDER BY 1) AS locks"""
READ_KEYS = """SELECT project_id, scope, e.key, value FROM executor.store_entry e
    JOIN unnest($1::uuid[], $2::text[], $3::text[]) AS t (p, s, k) ON (project_id, scope, e.key) = (t.p, t.s, t.k)"""


@contextmanager
def _failures() -> Iterator[None]:
    """Turn the functions' own SQL states into the heart's failures."""
    try:
        yield
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
        raise FlushRefused(str(error)) from error
    except asyncpg.PostgresError as error:
        match error.sqlstate:
            case "MR001":
                raise Fenced(str(error)) from error
            case "MR002":
                raise PositionMoved(str(error)) from error
            case "MR003":
                raise Fenced(str(error)) from error
            case _:
                raise


def _arguments(batch: FlushBatch) -> list[Any]:
    """The 33 arguments of the flush: arrays, column by column."""
    new = [run for run in batch.runs if run.new]
    chunks = [run for run in batch.runs if not run.new and run.chunk is not None]
    ended = [run for run in batch.runs if not run.new and run.end is not None]
    identities = [run.identity for run in new]
    ends = [run.end for run in ended if run.end is not None]
    return [
        batch.epoch,
        batch.flush_no,
        *(list(column) for column in (zip(*batch.positions, strict=True) if batch.positions else ((),) * 5)),
        [UUID(bytes=identity.run_id) for identity in identities],
        [identity.project_id for identity in identities],
        [identity.flow_id for identity in identities],
        [identity.version_id for identity in identities],
        [identity.trigger_id for identity in identities],
        [identity.test for identity in identities],
        [identity.reply_to for identity in identities],
        [run.end.status if run.end else run.status for run in new],
        [run.started_at_ms for run in new],
        [run.chunk for run in new],
        [run.end.finished_at_ms if run.end else None for run in new],
        [run.end.steps_finished if run.end else 0 for run in new],
        [run.end.error if run.end else None for run in new],
        [UUID(bytes=run.identity.run_id) for run in chunks],
        [run.chunk_no for run in chunks],
        [run.chunk for run in chunks],
        [UUID(bytes=run.identity.run_id) for run in ended],
        [end.status for end in ends],
        [run.started_at_ms for run in ended],
        [end.finished_at_ms for end in ends],
        [end.steps_finished for end in ends],
        [end.error for end in ends],
        [key.project_id for key in batch.values],
        [key.scope for key in batch.values],
        [key.key for key in batch.values],
        list(batch.values.values()),
    ]


async def _flush(connection: Any, batch: FlushBatch) -> set[bytes]:
    with _failures():
        refused = await connection.fetchval(FLUSH, *_arguments(batch))
    return {run_id.bytes for run_id in refused}


@dataclass(slots=True)
class PostgresScope:
    """A transaction that holds the locks of some store keys."""

    connection: Any
    values: Mapping[StoreKey, bytes]

    async def flush(self, batch: FlushBatch) -> set[bytes]:
        """See FlushScope."""
        return await _flush(self.connection, batch)


class PostgresStore:
    """Store on PostgreSQL; promises and failures as in `store.Store`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin_incarnation(self, name: str, *, sole: bool) -> int:
        """See Store."""
        async with self._database.acquire() as connection:
            if sole:
                for beat in await self.beats():
                    await connection.fetchval(TAKE_OVER, beat.epoch, beat.beat)
            return int(await connection.fetchval(BEGIN, name))

    async def flush(self, batch: FlushBatch) -> set[bytes]:
        """See Store. One statement, one round trip, one commit."""
        async with self._database.acquire() as connection:
            return await _flush(connection, batch)

    @asynccontextmanager
    async def locked(self, keys: Sequence[StoreKey]) -> AsyncIterator[PostgresScope]:
        """See Store."""
        columns = [list(column) for column in zip(*keys, strict=True)]
        async with self._database.acquire() as connection, connection.transaction():
            await connection.execute(LOCK_KEYS, *columns)
            rows = await connection.fetch(READ_KEYS, *columns)
            yield PostgresScope(connection, {StoreKey(str(row[0]), row[1], row[2]): row[3] for row in rows})

    async def last_flush(self, epoch: int) -> tuple[int, set[bytes]]:
        """See Store."""
        async with self._database.acquire() as connection:
            row = await connection.fetchrow(LAST_FLUSH, epoch)
        if row is None:
            raise Fenced(f"Incarnation {epoch} is not alive.")
        return row["flush_no"], {run_id.bytes for run_id in row["rejected"]}

    async def claim(self, epoch: int, claim: Claim) -> list[ClaimedRun]:
        """See Store."""
        async with self._database.acquire() as connection:
            with _failures():
                rows = await connection.fetch(CLAIM, epoch, *claim)
            if not rows:
                return []
            chunks: dict[UUID, list[bytes]] = {row["run_id"]: [] for row in rows}
            for chunk in await connection.fetch(CHUNKS, list(chunks)):
                chunks[chunk["run_id"]].append(chunk["entries"])
        return [ClaimedRun(_identity(row), row["started_at"], _begun(row), chunks[row["run_id"]]) for row in rows]

    async def beats(self) -> list[Beat]:
        """See Store."""
        async with self._database.acquire() as connection:
            return [Beat(row["epoch"], row["beat"]) for row in await connection.fetch(BEATS)]

    async def take_over(self, epoch: int, seen_beat: int) -> int | None:
        """See Store."""
        async with self._database.acquire() as connection:
            queued: int | None = await connection.fetchval(TAKE_OVER, epoch, seen_beat)
        return queued

    async def hand_over(self, epoch: int) -> int | None:
        """See Store."""
        async with self._database.acquire() as connection:
            queued: int | None = await connection.fetchval(HAND_OVER, epoch)
        return queued

    async def positions(self, topic: str) -> dict[int, Position]:
        """See Store."""
        async with self._database.acquire() as connection:
            rows = await connection.fetch(POSITIONS, topic)
        return {row["partition"]: Position(row["log_epoch"], row["next_offset"]) for row in rows}

    async def start_position(self, topic: str, partition: int, old: Position | None, new: Position) -> Position:
        """See Store."""
        async with self._database.acquire() as connection:
            if old is None:
                await connection.execute(ADD_POSITION, topic, partition, *new)
            else:
                await connection.execute(RENEW_POSITION, topic, partition, *new, *old)
        return (await self.positions(topic))[partition]

    async def oldest_ms(self) -> int:
        """See Store."""
        return int(await self._database.fetchval(OLDEST))

    async def prepare_partitions(self, weeks_ahead: int) -> None:
        """See Store."""
        await self._database.execute(PREPARE, weeks_ahead)


def _begun(row: Any) -> bool:
    return not row["handed_over"] and (row["started_at"] is not None or row["claims"] > 1)


def _identity(row: Any) -> RunIdentity:
    return RunIdentity(
        run_id=row["run_id"].bytes,
        project_id=str(row["project_id"]),
        flow_id=str(row["flow_id"]),
        version_id=str(row["version_id"]),
        trigger_id=row["trigger_id"],
        test=row["test"],
        reply_to=row["reply_to"],
    )
