"""The executor's database in memory: the promises of `store.Store`, and everything that can go wrong around a commit.

A commit takes effect at one moment; before it and after it there is time in which the asking process can die, and in
which the answer can get lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

from chassis.errors import Unavailable
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
    RunStatus,
    RunWrite,
    StoreKey,
)


@dataclass
class Mutations:
    """Checks that a test takes away, to see that something then breaks."""

    no_fence: bool = False
    no_position_check: bool = False


@dataclass
class LiveRow:
    identity: RunIdentity
    status: RunStatus
    owner: int | None
    started_at_ms: int | None
    claim_no: int | None = None
    claims: int = 0
    handed_over: bool = False


@dataclass
class IncarnationRow:
    alive: bool = True
    beat: int = 0
    flush_no: int = 0
    rejected: set[bytes] = field(default_factory=set)


class SimDatabase:
    """What survives every crash."""

    def __init__(self, mutations: Mutations) -> None:
        self.mutations = mutations
        self.incarnations: dict[int, IncarnationRow] = {}
        self.positions: dict[tuple[str, int], Position] = {}
        self.live: dict[bytes, LiveRow] = {}
        self.ended: dict[bytes, RunStatus] = {}
        self.journal: dict[bytes, list[bytes]] = {}
        self.values: dict[StoreKey, bytes] = {}
        self.locks: dict[StoreKey, asyncio.Lock] = {}
        self.commits = 0

    def flush(self, batch: FlushBatch) -> set[bytes]:
        """The flush function: all or nothing, at one moment."""
        self._check(batch)
        duplicates = {run.identity.run_id for run in batch.runs if run.new and run.identity.run_id in self.journal}
        for run in batch.runs:
            if not (run.new and run.identity.run_id in duplicates):
                self._write(run, batch.epoch)
        for move in batch.positions:
            stands = self.positions[move.topic, move.partition]
            self.positions[move.topic, move.partition] = Position(stands.log_epoch, move.next_offset)
        for key, value in batch.values.items():
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value
        row = self.incarnations[batch.epoch]
        row.flush_no, row.rejected = batch.flush_no, duplicates
        row.beat += 1
        self.commits += 1
        return duplicates

    def living(self, epoch: int) -> bool:
        """Whether an incarnation was not taken over."""
        row = self.incarnations.get(epoch)
        return row is not None and row.alive

    def _check(self, batch: FlushBatch) -> None:
        row = self.incarnations.get(batch.epoch)
        if not self.mutations.no_fence and not (row and row.alive and row.flush_no == batch.flush_no - 1):
            raise Fenced
        for move in batch.positions:
            stands = self.positions.get((move.topic, move.partition))
            if not self.mutations.no_position_check and stands != Position(move.log_epoch, move.seen_offset):
                raise PositionMoved
        new = [run.identity.run_id for run in batch.runs if run.new]
        if len(new) != len(set(new)):
            raise FlushRefused("a run stands twice in one flush")  # the key of run_live
        for run in batch.runs:
            run_id = run.identity.run_id
            if not run.new and run.chunk is not None and run.chunk_no != len(self.journal[run_id]):
                raise FlushRefused(f"chunk {run.chunk_no} of {run_id.hex()} is not the next")
            if not run.new and run.end is not None and not self._owned(run_id, batch.epoch):
                raise Fenced

    def _write(self, run: RunWrite, epoch: int) -> None:
        run_id = run.identity.run_id
        if run.chunk is not None:
            self.journal.setdefault(run_id, []).append(run.chunk)
        if run.end is not None:
            self.live.pop(run_id, None)
            self.ended[run_id] = run.end.status
        elif run.new:
            owner = None if run.status is RunStatus.QUEUED else epoch
            self.live[run_id] = LiveRow(run.identity, run.status, owner, run.started_at_ms)

    def _owned(self, run_id: bytes, epoch: int) -> bool:
        return self.mutations.no_fence or (run_id in self.live and self.live[run_id].owner == epoch)


class SimStore:
    """One process's way to the database; `store.Store`."""

    def __init__(self, database: SimDatabase, random: Random, trouble: float) -> None:
        self._database = database
        self._random = random
        self._trouble = trouble
        self.stalled_until = 0.0
        """Until then nothing goes in or out: the process is cut off, but lives."""

    async def _travel(self) -> None:
        """Time passes; the question or the answer may get lost."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._random.random() * 0.005)
        if self.stalled_until > loop.time():
            await asyncio.sleep(self.stalled_until - loop.time())
        if self._random.random() < self._trouble:
            raise Unavailable("DATABASE_AWAY", "The connection broke.", retry_after_s=1)

    async def begin_incarnation(self, name: str, *, sole: bool) -> int:
        database = self._database
        await asyncio.sleep(0.001)
        if sole:
            for epoch, row in list(database.incarnations.items()):
                self._kill(epoch, row)
        epoch = len(database.incarnations) + 1
        database.incarnations[epoch] = IncarnationRow()
        return epoch

    async def flush(self, batch: FlushBatch) -> set[bytes]:
        await self._travel()
        duplicates = self._database.flush(batch)
        await self._travel()
        return duplicates

    @asynccontextmanager
    async def locked(self, keys: Sequence[StoreKey]) -> AsyncIterator[_Scope]:
        database = self._database
        locks = [database.locks.setdefault(key, asyncio.Lock()) for key in sorted(keys)]
        await self._travel()
        for lock in locks:
            await lock.acquire()
        try:
            scope = _Scope(database, {key: database.values[key] for key in keys if key in database.values})
            yield scope
            await self._travel()
            scope.commit()
        finally:
            for lock in locks:
                lock.release()
        await self._travel()

    async def last_flush(self, epoch: int) -> tuple[int, set[bytes]]:
        await self._travel()
        row = self._database.incarnations.get(epoch)
        if row is None or (not row.alive and not self._database.mutations.no_fence):
            raise Fenced
        return row.flush_no, row.rejected

    async def claim(self, epoch: int, claim: Claim) -> list[ClaimedRun]:
        await self._travel()
        database = self._database
        if not database.living(epoch):
            raise Fenced
        rows = sorted(database.live.items())
        taken = [row for _, row in rows if claim.again and row.owner == epoch and row.claim_no == claim.number]
        if not taken:
            taken = _in_turn([row for _, row in rows if row.status is RunStatus.QUEUED], claim)
            for row in taken:
                row.status, row.owner, row.claim_no = RunStatus.RUNNING, epoch, claim.number
                row.claims += 1
        claimed = [
            ClaimedRun(
                row.identity,
                row.started_at_ms,
                not row.handed_over and (row.started_at_ms is not None or row.claims > 1),
                list(database.journal[row.identity.run_id]),
            )
            for row in taken
        ]
        await self._travel()
        return claimed

    async def beats(self) -> list[Beat]:
        await self._travel()
        return [Beat(epoch, row.beat) for epoch, row in self._database.incarnations.items() if row.alive]

    async def take_over(self, epoch: int, seen_beat: int) -> int | None:
        await self._travel()
        row = self._database.incarnations.get(epoch)
        if row is None or not row.alive or row.beat != seen_beat:
            return None
        return self._kill(epoch, row)

    def _kill(self, epoch: int, row: IncarnationRow, *, handed_over: bool = False) -> int:
        row.alive = False
        mine = [run for run in self._database.live.values() if run.owner == epoch]
        for run in mine:
            run.status, run.owner, run.claim_no = RunStatus.QUEUED, None, None
            run.handed_over = handed_over
        return len(mine)

    async def hand_over(self, epoch: int) -> int | None:
        await self._travel()
        row = self._database.incarnations[epoch]
        if not row.alive:
            return None
        queued = self._kill(epoch, row, handed_over=True)
        await self._travel()
        return queued

    async def positions(self, topic: str) -> dict[int, Position]:
        await self._travel()
        return {
            partition: position for (name, partition), position in self._database.positions.items() if name == topic
        }

    async def start_position(self, topic: str, partition: int, old: Position | None, new: Position) -> Position:
        await self._travel()
        if self._database.positions.get((topic, partition)) == old:
            self._database.positions[topic, partition] = new
        return self._database.positions[topic, partition]

    async def oldest_ms(self) -> int:
        return 0

    async def prepare_partitions(self, weeks_ahead: int) -> None:
        pass


def _in_turn(queued: Sequence[LiveRow], claim: Claim) -> list[LiveRow]:
    """Oldest first in each project, projects in turn."""
    projects = sorted(
        {row.identity.project_id for row in queued},
        key=lambda project: (claim.after is not None and project <= claim.after, project),
    )
    taken: list[LiveRow] = []
    for project in projects:
        taken += [row for row in queued if row.identity.project_id == project][: claim.per_project]
    return taken[: claim.limit]


class _Scope:
    def __init__(self, database: SimDatabase, values: Mapping[StoreKey, bytes]) -> None:
        self._database = database
        self._batch: FlushBatch | None = None
        self._told: set[bytes] = set()
        self.values = values

    async def flush(self, batch: FlushBatch) -> set[bytes]:
        """Nothing is visible before the scope is left: the check here only tells what the commit will say."""
        self._batch = batch
        self._told = {
            run.identity.run_id for run in batch.runs if run.new and run.identity.run_id in self._database.journal
        }
        return self._told

    def commit(self) -> None:
        """What was told holds: in PostgreSQL two writers of one run id wait for each other; here the later gives up."""
        if self._batch is not None:
            new = {run.identity.run_id for run in self._batch.runs if run.new}
            if new & self._database.journal.keys() != self._told:
                raise Unavailable("DATABASE_AWAY", "Somebody else stored one of these runs.", retry_after_s=1)
            self._database.flush(self._batch)
