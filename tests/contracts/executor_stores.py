"""The executor's store on each adapter, and an eye that looks past it: what a contract test stands on.

A further adapter joins with one class like those below and one line in `ADAPTERS`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Protocol
from uuid import UUID

from chassis.database import Database
from chassis.ids import new_id
from services.executor.postgres_store import PostgresStore
from services.executor.store import (
    Claim,
    FlushBatch,
    Position,
    PositionMove,
    RunEnd,
    RunIdentity,
    RunStatus,
    RunWrite,
    Store,
    StoreKey,
)
from tests.simulation.sim_store import Mutations, SimDatabase, SimStore

TOPIC = "executions"
EPOCH = "log-1"
PROJECT = "0197c1f0-0000-7000-8000-000000000001"
FLOW = "0197c1f0-0000-7000-8000-000000000002"
VERSION = "0197c1f0-0000-7000-8000-000000000003"
KEY = StoreKey(PROJECT, "", "counter")


class Eye(Protocol):
    """What is stored, seen without the store under test."""

    async def journal(self, run_id: bytes) -> list[bytes]: ...
    async def status(self, run_id: bytes) -> RunStatus | None: ...
    async def owner(self, run_id: bytes) -> int | None: ...
    async def values(self) -> dict[StoreKey, bytes]: ...


@dataclass
class Backing:
    """A store with nothing in it yet."""

    store: Store
    eye: Eye

    async def began(self) -> int:
        """A living incarnation."""
        return await self.store.begin_incarnation("tester", sole=False)

    async def position(self, next_offset: int = 5) -> None:
        """Partition 0 stands here."""
        await self.store.start_position(TOPIC, 0, None, Position(EPOCH, next_offset))

    async def queued(self, epoch: int, flush_no: int, *projects: str) -> list[bytes]:
        """One queued run for each project named, in this order of age."""
        runs = [new_run(project, status=RunStatus.QUEUED) for project in projects]
        await self.store.flush(FlushBatch(epoch, flush_no, runs=runs))
        return [run.identity.run_id for run in runs]

    async def kill(self, epoch: int) -> int | None:
        """Take an incarnation over as somebody who watched it stand still."""
        beat = next(beat.beat for beat in await self.store.beats() if beat.epoch == epoch)
        return await self.store.take_over(epoch, beat)

    async def content(self, *run_ids: bytes) -> object:
        """Everything a flush could have changed."""
        runs = [(await self.eye.journal(run_id), await self.eye.status(run_id)) for run_id in run_ids]
        return runs, await self.store.positions(TOPIC), await self.eye.values(), await self.store.beats()


def new_run(
    project: str = PROJECT, chunk: bytes = b"chunk 0", status: RunStatus = RunStatus.RUNNING, end: RunEnd | None = None
) -> RunWrite:
    """A run that is stored for the first time."""
    identity = RunIdentity(new_id().bytes, project, FLOW, VERSION, "hook")
    started = None if status is RunStatus.QUEUED else 1_000
    return RunWrite(identity, True, 0, chunk, end.status if end else status, started, end)


def later(run: RunWrite, chunk_no: int, chunk: bytes | None, end: RunEnd | None = None) -> RunWrite:
    """What a run that is stored writes next."""
    status = end.status if end else RunStatus.RUNNING
    return RunWrite(run.identity, False, chunk_no, chunk, status, 1_000, end)


def ended(status: RunStatus = RunStatus.SUCCEEDED) -> RunEnd:
    return RunEnd(status, 2_000, 3, b"error" if status is not RunStatus.SUCCEEDED else None)


def move(seen: int, then: int, log_epoch: str = EPOCH, partition: int = 0) -> PositionMove:
    return PositionMove(TOPIC, partition, log_epoch, seen, then)


def claim(
    number: int = 1, *, again: bool = False, limit: int = 100, per_project: int = 50, after: str | None = None
) -> Claim:
    return Claim(number, again, limit, per_project, after)


class PostgresEye:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def journal(self, run_id: bytes) -> list[bytes]:
        statement = "SELECT entries FROM executor.journal WHERE run_id = $1 ORDER BY chunk_no"
        return [row["entries"] for row in await self._database.fetch(statement, UUID(bytes=run_id))]

    async def status(self, run_id: bytes) -> RunStatus | None:
        statement = """SELECT status FROM executor.run_live WHERE run_id = $1
            UNION ALL SELECT status FROM executor.run WHERE run_id = $1"""
        rows = await self._database.fetch(statement, UUID(bytes=run_id))
        assert len(rows) <= 1, "a run is live or ended, never both"
        return RunStatus(rows[0]["status"]) if rows else None

    async def owner(self, run_id: bytes) -> int | None:
        statement = "SELECT owner_epoch FROM executor.run_live WHERE run_id = $1"
        owner: int | None = await self._database.fetchval(statement, UUID(bytes=run_id))
        return owner

    async def values(self) -> dict[StoreKey, bytes]:
        rows = await self._database.fetch("SELECT project_id, scope, key, value FROM executor.store_entry")
        return {StoreKey(str(row["project_id"]), row["scope"], row["key"]): row["value"] for row in rows}


class SimEye:
    def __init__(self, database: SimDatabase) -> None:
        self._database = database

    async def journal(self, run_id: bytes) -> list[bytes]:
        return list(self._database.journal.get(run_id, ()))

    async def status(self, run_id: bytes) -> RunStatus | None:
        live = self._database.live.get(run_id)
        assert live is None or run_id not in self._database.ended, "a run is live or ended, never both"
        return live.status if live else self._database.ended.get(run_id)

    async def owner(self, run_id: bytes) -> int | None:
        live = self._database.live.get(run_id)
        return live.owner if live else None

    async def values(self) -> dict[StoreKey, bytes]:
        return dict(self._database.values)


_EMPTY = """TRUNCATE executor.incarnation, executor.position, executor.run_live, executor.run, executor.journal,
    executor.store_entry"""


_BODY = "SELECT pg_get_functiondef(('executor.' || $1)::regproc)"


@asynccontextmanager
async def on_postgres(url: str) -> AsyncIterator[Backing]:
    """PostgresStore on a migrated database, emptied."""
    async with Database(url, "executor") as database:
        await database.execute(_EMPTY)
        yield Backing(PostgresStore(database), PostgresEye(database))


@asynccontextmanager
async def without_safeguard(url: str, function: str, text: str, without: str) -> AsyncIterator[Backing]:
    """As `on_postgres`, but with other words in one of the functions of the schema."""
    async with Database(url, "executor") as database:
        body = await database.fetchval(_BODY, function)
        assert text in body, f"{function} does not say {text!r} any more: this test proves nothing"
        await database.execute(body.replace(text, without))
        try:
            async with on_postgres(url) as backing:
                yield backing
        finally:
            await database.execute(body)


@asynccontextmanager
async def on_simulation(mutations: Mutations | None = None) -> AsyncIterator[Backing]:
    """SimStore without trouble."""
    database = SimDatabase(mutations or Mutations())
    yield Backing(SimStore(database, Random(1), 0.0), SimEye(database))


def project(number: int) -> str:
    """Projects whose ids are in the order of their numbers."""
    return f"0197c1f0-0000-7000-8000-{number:012d}"


__all__ = [
    "EPOCH",
    "KEY",
    "PROJECT",
    "TOPIC",
    "Backing",
    "claim",
    "ended",
    "later",
    "move",
    "new_run",
    "on_postgres",
    "on_simulation",
    "project",
    "without_safeguard",
]
