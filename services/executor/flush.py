"""Group commit: when what the runs did becomes durable, and who waits for it.

Decides: a flush is what gathered while the last was in flight; one statement a flush, one flush in flight. It goes at
once when somebody waits (a barrier, an answer, an end, the outcome of an effect); what nobody waits for goes along
one flush later, or after LAZY_S alone, so that a run which begins and ends between two flushes is one insert.
Leaves: what an entry means to engine/; the statement to postgres_store.py; recovery from the journal to dispatch.py.
Holds: I2 (positions move with the runs), I3 (a run's flushes commit in order, each a causally closed prefix), I4
(`durable` is the barrier),
I8 (no living incarnation, no flush).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import structlog

from chassis.clock import Clock
from chassis.errors import Unavailable
from chassis.failpoints import reach
from services.executor.active import ActiveRun
from services.executor.engine.commands import Command
from services.executor.engine.events import Event
from services.executor.engine.journal import RunError, RunFinished, encode_chunk
from services.executor.positions import Positions, RecordSlot
from services.executor.store import (
    Fenced,
    FlushBatch,
    FlushRefused,
    PositionMoved,
    RunEnd,
    RunStatus,
    RunWrite,
    Store,
    StoreKey,
)

LAZY_S = 0.02
"""How long something that nobody waits for may stay unwritten, in seconds."""
BEAT_S = 0.5
"""Longest time between two flushes, in seconds: an idle incarnation shows that it lives (I8)."""
MAX_RUNS = 1_000
"""Most runs in one flush; the others are in the next."""
LEASE_S = 2.0
"""No effect begins when the last flush is older than this, in seconds (execution.md, No wall clocks between
machines).
"""
RETRY_S = 0.2
"""Pause before a flush is tried again when the database is away, in seconds."""

log = structlog.get_logger()


@dataclass(slots=True)
class StoreOperation:
    """A step of the store piece that waits for the next flush.

    `change`: the value now → (the value then, the event for the machine).
    """

    run: ActiveRun
    key: StoreKey
    change: Callable[[bytes | None], tuple[bytes | None, Event]]
    done: asyncio.Future[list[Command]]
    commands: list[Command] = field(default_factory=list)


@dataclass(slots=True)
class PlainWrite:
    """A write of a run that is not at work here: queued for want of room, or ended because it cannot run at all."""

    write: RunWrite
    slot: RecordSlot | None = None


class Flusher:
    """The flush of one incarnation.

    `settled` is called with the runs of each committed flush, `rejected` with those that were duplicates.
    """

    def __init__(
        self,
        store: Store,
        epoch: int,
        clock: Clock,
        positions: Positions,
        settled: Callable[[Sequence[ActiveRun]], None],
        rejected: Callable[[ActiveRun], None],
    ) -> None:
        self._store = store
        self._epoch = epoch
        self._clock = clock
        self._positions = positions
        self._settled = settled
        self._rejected = rejected
        self._flush_no = 0
        self._dirty: dict[ActiveRun, None] = {}
        self._plain: list[PlainWrite] = []
        self._plain_ids: set[bytes] = set()
        self._operations: list[StoreOperation] = []
        self._poisoned: set[bytes] = set()
        """Runs that the flush under way has ended because the database refused what they had to store."""
        self._wake = asyncio.Event()
        self._lazy: asyncio.TimerHandle | None = None
        self._last_flush = clock.monotonic()
        self._flushed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.position_lost = asyncio.Event()
        """Set when another executor moved a position of ours: intake must ask again which partitions are whose."""

    def note(self, run: ActiveRun, *, urgent: bool) -> None:
        """The run has something to write. Once its end is in a flush, it never has."""
        if run.dropped or run.gone:
            return
        if run not in self._dirty:
            self._dirty[run] = None
            run.noted_at = self._flush_no
        if urgent:
            run.urgent = True
            self._wake.set()
        elif self._lazy is None:
            self._lazy = asyncio.get_running_loop().call_later(LAZY_S, self._wake.set)

    def write(self, write: PlainWrite) -> None:
        """Store a run that is not at work here with the next flush."""
        self._plain.append(write)
        self._plain_ids.add(write.write.identity.run_id)
        self._wake.set()

    def holds(self, run_id: bytes) -> bool:
        """Whether the next flush will store this run: a second delivery must not go into the same one (I2)."""
        return run_id in self._plain_ids

    async def durable(self, run: ActiveRun, after: int) -> None:
        """Return when the first `after` journal entries of `run` are committed and this incarnation's lease is fresh
        (I4, I8).
        """
        while run.durable < after or self._clock.monotonic() - self._last_flush > LEASE_S:
            waiter = asyncio.get_running_loop().create_future()
            run.waiters.append((after, waiter))
            self.note(run, urgent=True)
            await waiter

    async def operate(
        self, run: ActiveRun, key: StoreKey, change: Callable[[bytes | None], tuple[bytes | None, Event]]
    ) -> list[Command]:
        """Carry out a store operation inside the next flush, together with the journal that tells of it. Answer, when
        that is durable, what the
        machine asks for next."""
        if not run.known:
            await self.durable(run, 1)  # were the run a second delivery, its operation would count twice (I2)
        operation = StoreOperation(run, key, change, asyncio.get_running_loop().create_future())
        self._operations.append(operation)
        self.note(run, urgent=True)
        return await operation.done

    async def write_all(self, runs: Sequence[ActiveRun]) -> None:
        """Return when everything that these runs have to say is committed."""
        for run in runs:
            if run.machine.has_entries:
                self.note(run, urgent=True)
        while any(run.machine.has_entries for run in runs if not run.dropped):
            await self.next_flush()
        await self.next_flush()

    async def next_flush(self) -> None:
        """Return when the flush that is under way, or the next one, has committed."""
        await asyncio.shield(self._flushed)

    async def run(self) -> None:
        """Flush until cancelled.

        Raises Fenced when this incarnation was taken over: everything in its hands must be dropped.
        """
        while True:
            try:
                async with asyncio.timeout(BEAT_S):
                    await self._wake.wait()
            except TimeoutError:
                pass  # nothing to write: the flush is a beat
            await self.flush()

    async def flush(self) -> None:
        """One flush: gather, commit, tell."""
        self._wake.clear()
        if self._lazy is not None:
            self._lazy.cancel()
            self._lazy = None
        runs = self._gather()
        operations = self._operations_of(runs)
        plain, self._plain = self._plain, []
        self._plain_ids.clear()
        for item in plain:
            if item.slot is not None:
                item.slot.written()
        started = self._clock.monotonic()
        await reach("flush.before_commit")
        if operations:
            duplicates = await self._commit_with_operations(runs, plain, operations)
        else:
            duplicates = await self._commit(self._batch(runs, plain))
        await reach("flush.committed")
        self._last_flush = started
        self._flushed.set_result(None)
        self._flushed = asyncio.get_running_loop().create_future()
        self._tell(runs, duplicates)
        for operation in operations:
            if not operation.done.done():
                operation.done.set_result(operation.commands)

    def _gather(self) -> list[ActiveRun]:
        """The runs of this flush.

        Those that somebody waits for, and those that were dirty before the last flush or have waited LAZY_S.
        """
        self._flush_no += 1
        lazy_too = not any(run.urgent for run in self._dirty) and not self._plain
        chosen = [run for run in self._dirty if run.urgent or lazy_too or run.noted_at < self._flush_no - 1]
        if len(chosen) > MAX_RUNS:
            del chosen[MAX_RUNS:]
            self._wake.set()
        for run in chosen:
            del self._dirty[run]
            run.urgent = False
            run.noted_at = -1
        if self._dirty and self._lazy is None:
            self._lazy = asyncio.get_running_loop().call_later(LAZY_S, self._wake.set)
        return chosen

    def _operations_of(self, runs: Sequence[ActiveRun]) -> list[StoreOperation]:
        """The operations of this flush: those of its runs, because an operation and its journal are one commit (I3).

        What was given up meanwhile (its run ended, or is no longer ours) never happens.
        """
        waiting = [operation for operation in self._operations if not operation.done.done()]
        chosen = set(runs)
        self._operations = [operation for operation in waiting if operation.run not in chosen]
        return [operation for operation in waiting if operation.run in chosen]

    def _batch(self, runs: Sequence[ActiveRun], plain: Sequence[PlainWrite]) -> FlushBatch:
        writes = [_write(run) for run in runs]
        writes += [item.write for item in plain]
        return FlushBatch(self._epoch, self._flush_no, self._positions.moves(), writes)

    async def _commit(self, batch: FlushBatch) -> set[bytes]:
        """Commit, whatever it takes.

        Again when the database is away, without positions when they are lost, in halves when it is refused.
        """
        while True:
            try:
                return await self._store.flush(batch)
            except PositionMoved:
                self._give_up_positions()
                batch = replace(batch, positions=())
            except FlushRefused as refusal:
                return await self._commit_halves(batch, refusal)
            except Unavailable:
                duplicates = await self._settle_lost_commit(batch.flush_no)
                if duplicates is not None:
                    return duplicates

    async def _settle_lost_commit(self, flush_no: int) -> set[bytes] | None:
        """After a commit whose answer was lost.

        What it answered if it was committed, None if it was not (never write again blindly).
        """
        while True:
            await asyncio.sleep(RETRY_S)
            try:
                committed, duplicates = await self._store.last_flush(self._epoch)
            except Unavailable:
                continue
            return duplicates if committed == flush_no else None

    async def _commit_halves(self, batch: FlushBatch, refusal: FlushRefused) -> set[bytes]:
        """A poison run stands alone: it ends as internal error, the others commit."""
        if len(batch.runs) == 1:
            run = batch.runs[0]
            if run.status is RunStatus.INTERNAL_ERROR:  # even its end is refused: nothing of it can be kept
                log.error("run_not_storable", run_id=run.identity.run_id.hex(), reason=str(refusal))
                self._poisoned.add(run.identity.run_id)
                return await self._commit(replace(batch, runs=[]))
            log.error("run_poisoned", run_id=run.identity.run_id.hex(), reason=str(refusal))
            self._poisoned.add(run.identity.run_id)
            return await self._commit(replace(batch, runs=[_poisoned(run, self._clock.now_ms())]))
        if not batch.runs:
            raise refusal
        middle = len(batch.runs) // 2
        duplicates = await self._commit(replace(batch, runs=batch.runs[:middle], positions=()))
        self._flush_no += 1
        return duplicates | await self._commit(replace(batch, runs=batch.runs[middle:], flush_no=self._flush_no))

    async def _commit_with_operations(
        self, runs: list[ActiveRun], plain: Sequence[PlainWrite], operations: Sequence[StoreOperation]
    ) -> set[bytes]:
        """Lock the keys, apply the operations, hand the machines their outcomes, and commit all of it at once."""
        keys = sorted({operation.key for operation in operations})
        batch: FlushBatch | None = None
        seen: dict[StoreKey, bytes] = {}
        duplicates: set[bytes] = set()
        while True:
            try:
                async with self._store.locked(keys) as scope:
                    if batch is None:
                        seen = dict(scope.values)
                        batch = self._apply(operations, seen, runs, plain)
                    elif dict(scope.values) != seen:
                        # The machines have gone on from values that are no longer there: only the journal knows the
                        # way back.
                        raise Fenced(
                            "A stored value changed while a flush was tried again; starting over from the journal."
                        )
                    found = await scope.flush(batch)
                return duplicates | found
            except PositionMoved:
                self._give_up_positions()
                batch = replace(batch, positions=()) if batch is not None else None
            except FlushRefused as refusal:
                operating = {operation.run.identity.run_id for operation in operations}
                others, batch = _apart(batch, operating, refusal)
                duplicates |= await self._commit(others)
                self._flush_no += 1
                batch = replace(batch, flush_no=self._flush_no)
            except Unavailable:
                settled = await self._settle_lost_commit(self._flush_no)
                if settled is not None:
                    return duplicates | settled

    def _apply(
        self,
        operations: Sequence[StoreOperation],
        seen: dict[StoreKey, bytes],
        runs: list[ActiveRun],
        plain: Sequence[PlainWrite],
    ) -> FlushBatch:
        values: dict[StoreKey, bytes | None] = {**seen}
        for operation in operations:
            if operation.done.done():
                continue  # given up a moment ago
            values[operation.key], event = operation.change(values.get(operation.key))
            operation.commands = operation.run.machine.handle(event)
        changed = {key: value for key, value in values.items() if value != seen.get(key)}
        return replace(self._batch(runs, plain), values=changed)

    def _give_up_positions(self) -> None:
        self._positions.drop()
        self.position_lost.set()

    def _tell(self, runs: Sequence[ActiveRun], duplicates: set[bytes]) -> None:
        """Let the barriers go and tell whoever listens."""
        if duplicates or self._poisoned:
            # A run that was known before is the one that the second delivery in this same flush is a duplicate of.
            lost = [run for run in runs if not run.known and run.identity.run_id in duplicates]
            lost += [run for run in runs if run.identity.run_id in self._poisoned and run not in lost]
            self._poisoned.clear()
            for run in lost:
                run.drop()
                self._dirty.pop(run, None)
                self._rejected(run)
            runs = [run for run in runs if run not in lost]
        for run in runs:
            run.durable = run.taken  # I3: only now is it finished, for barriers, answers and whoever watches
            run.known = True
            if run.waiters:
                waiting, run.waiters = run.waiters, []
                for after, waiter in waiting:
                    if waiter.done():
                        continue
                    if after <= run.durable:
                        waiter.set_result(None)
                    else:
                        run.waiters.append((after, waiter))
                        self.note(run, urgent=True)
        self._settled(runs)


def _write(run: ActiveRun) -> RunWrite:
    """Take what the run has to say since its last flush."""
    entries = run.machine.take_entries()
    run.taken += len(entries)
    run.flushed = entries
    run.steps_flushed = run.machine.steps_finished
    run.gone = run.end is not None
    write = RunWrite(
        identity=run.identity,
        new=not run.stored,
        chunk_no=run.next_chunk,
        chunk=encode_chunk(entries) if entries else None,
        status=RunStatus.RUNNING,
        started_at_ms=run.started_at_ms,
        end=run.end,
    )
    if entries:
        run.next_chunk += 1
    run.stored = True
    for slot in run.slots:
        slot.written()
    run.slots.clear()
    return write


def _apart(batch: FlushBatch | None, operating: set[bytes], refusal: FlushRefused) -> tuple[FlushBatch, FlushBatch]:
    """A refused batch in two: what has nothing to do with store operations, to be halved until the culprit is alone;
    and the operations with their runs, which only a commit of both may store (I3). Positions go with the new runs."""
    if batch is None:
        raise refusal
    others = [run for run in batch.runs if run.identity.run_id not in operating]
    if not others:
        raise refusal
    rest = [run for run in batch.runs if run.identity.run_id in operating]
    return replace(batch, runs=others, values={}), replace(batch, runs=rest, positions=())


def _poisoned(run: RunWrite, now_ms: int) -> RunWrite:
    """The write that ends a run whose own data the database refuses."""
    error = RunError(
        "",
        (),
        0,
        "INTERNAL_ERROR",
        "The database refused what this run had to store. Its last steps are not in its journal.",
    )
    end = RunEnd(RunStatus.INTERNAL_ERROR, now_ms, 0, msgspec.msgpack.encode(error))
    return replace(
        run,
        status=RunStatus.INTERNAL_ERROR,
        started_at_ms=run.started_at_ms or now_ms,
        chunk=encode_chunk([RunFinished("internal_error", error, now_ms)]),
        end=end,
    )
