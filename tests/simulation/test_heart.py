"""Moments of the heart that a seed meets too rarely, each laid out by hand on the store and the log of the simulation.

Each was found by a reviewer as a way to lose or to repeat something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from uuid import UUID

import msgspec
import pytest
from millrace.events.v1.events_pb2 import ExecutionBatch, ExecutionRequest

from chassis.ids import new_id
from chassis.log.port import Record
from services.executor import flush
from services.executor.active import ActiveRun
from services.executor.driver.actions import Actions
from services.executor.driver.installed import INSTALLED
from services.executor.engine.commands import Command, Ref
from services.executor.engine.events import Event, Woken
from services.executor.engine.journal import RunError, RunFinished, RunStarted, encode_chunk
from services.executor.engine.machine import Machine
from services.executor.flush import PlainWrite
from services.executor.incarnation import Incarnation
from services.executor.intake import TOPIC
from services.executor.store import (
    ClaimedRun,
    FlushBatch,
    FlushRefused,
    Position,
    RunEnd,
    RunIdentity,
    RunStatus,
    RunWrite,
    StoreKey,
)
from services.executor.surroundings import surroundings_at
from tests.simulation.scenario import PAYLOAD, PLANS, PROJECT, NoConnections, NoFiles, SimPlans, SimSandbox
from tests.simulation.sim_log import SimLog
from tests.simulation.sim_store import LiveRow, Mutations, SimDatabase, SimStore
from tests.simulation.virtual import VirtualClock, VirtualLoop, run_virtual
from tests.simulation.world import Ledger, WorldHttp

KEY = StoreKey(PROJECT, "", "total")


class PoisonedDatabase(SimDatabase):
    """Refuses everything of some runs but their bad end."""

    def __init__(self) -> None:
        super().__init__(Mutations())
        self.poisoned: set[bytes] = set()

    def flush(self, batch: FlushBatch) -> set[bytes]:
        if any(
            run.identity.run_id in self.poisoned and run.status is not RunStatus.INTERNAL_ERROR for run in batch.runs
        ):
            raise FlushRefused("it does not like a run")
        return super().flush(batch)


class Heart:
    """One incarnation whose loops do not run: the test says what happens next."""

    def __init__(self, loop: VirtualLoop, epoch: int, database: PoisonedDatabase, store: SimStore) -> None:
        self.database = database
        self.epoch = epoch
        self.log = SimLog()
        self.dropped: list[ActiveRun] = []
        clock = VirtualClock(loop)
        self.incarnation = Incarnation(
            epoch=epoch,
            store=store,
            log_=self.log,
            clock=clock,
            plans=SimPlans(),  # type: ignore[arg-type]  # the part of Plans that the heart uses
            sandbox=SimSandbox(Random(1)),  # type: ignore[arg-type]  # code and nothing else
            actions=Actions(INSTALLED, WorldHttp(Ledger(database), Random(1), 0)),
            connections=NoConnections(),
            files=NoFiles(),
            answer=lambda run, answer: None,
            told=lambda runs: None,
            surroundings=surroundings_at("http://simulated"),
            max_active=100,
        )
        self.flusher = self.incarnation.flusher
        self.intake = self.incarnation.intake

    def identity(self) -> RunIdentity:
        return RunIdentity(new_id().bytes, PROJECT, PROJECT, "line", "t")

    def run(self) -> ActiveRun:
        """A run in hand that has something to write, with nobody at work on it."""
        identity = self.identity()
        machine, _ = Machine.start(PLANS["line"], identity.run_id, "t", PAYLOAD, 1)
        run = ActiveRun(identity, PLANS["line"], machine, 1)
        self.incarnation.active.add(run)
        self.flusher.note(run, urgent=True)
        return run

    def operate(self, run: ActiveRun) -> asyncio.Task[list[Command]]:
        """A step of the store piece that adds one."""

        def change(value: bytes | None) -> tuple[bytes | None, Event]:
            return b"%d" % (int(value or b"0") + 1), Woken(Ref("", (), 0, -1), 1)

        return asyncio.get_running_loop().create_task(self.flusher.operate(run, KEY, change))

    def chunks(self, run: ActiveRun) -> Sequence[bytes]:
        return self.database.journal.get(run.identity.run_id, [])


def told(scene: Callable[[Heart], Awaitable[None]]) -> None:
    """Play a scene in virtual time."""
    loop = VirtualLoop()

    async def play() -> None:
        database = PoisonedDatabase()
        store = SimStore(database, Random(1), 0.0)
        await scene(Heart(loop, await store.begin_incarnation("tester", sole=True), database, store))

    run_virtual(play(), loop)
    assert not loop.failures


def test_a_store_operation_never_commits_without_the_journal_of_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """I3: with more runs than one flush takes, an operation went along without its run, and twice after a crash."""

    async def scene(heart: Heart) -> None:
        operating = heart.run()
        await heart.flusher.flush()
        heart.run()  # is first in line, and the only one that the next flush takes
        operation = heart.operate(operating)
        await asyncio.sleep(0)
        await heart.flusher.flush()
        assert not heart.database.values
        await heart.flusher.flush()
        assert heart.database.values == {KEY: b"1"}
        assert await operation == []

    monkeypatch.setattr(flush, "MAX_RUNS", 1)
    told(scene)


def test_a_store_operation_that_was_given_up_does_not_happen() -> None:
    async def scene(heart: Heart) -> None:
        run = heart.run()
        await heart.flusher.flush()
        operation = heart.operate(run)
        await asyncio.sleep(0)
        operation.cancel()
        await heart.flusher.flush()
        assert not heart.database.values

    told(scene)


def test_a_poisoned_run_ends_in_memory_too() -> None:
    """It went on to work, and its own end, refused as not ours, then took the whole incarnation with it."""

    async def scene(heart: Heart) -> None:
        poisoned, healthy = heart.run(), heart.run()
        heart.database.poisoned.add(poisoned.identity.run_id)
        await heart.flusher.flush()
        assert heart.database.ended == {poisoned.identity.run_id: RunStatus.INTERNAL_ERROR}
        assert poisoned.dropped
        assert heart.incarnation.active.all() == [healthy]
        assert healthy.known

    told(scene)


def test_a_poisoned_run_beside_a_store_operation_ends_alone() -> None:
    """The refusal went through the flush, and ended the process again after every restart."""

    async def scene(heart: Heart) -> None:
        operating = heart.run()
        await heart.flusher.flush()
        poisoned, healthy = heart.run(), heart.run()
        heart.database.poisoned.add(poisoned.identity.run_id)
        operation = heart.operate(operating)
        await asyncio.sleep(0)
        await heart.flusher.flush()
        assert heart.database.ended == {poisoned.identity.run_id: RunStatus.INTERNAL_ERROR}
        assert len(heart.chunks(healthy)) == 1
        assert heart.database.values == {KEY: b"1"}
        assert await operation == []
        await heart.flusher.flush()  # the flush numbers still follow each other

    told(scene)


def test_nothing_is_written_of_a_run_whose_end_is_in_a_flush() -> None:
    """A late word of a task that was cancelled wrote the end again: refused as not ours, it ended the incarnation."""

    async def scene(heart: Heart) -> None:
        run = heart.run()
        run.end = RunEnd(RunStatus.SUCCEEDED, 1, 0)
        await heart.flusher.flush()
        heart.flusher.note(run, urgent=True)
        await heart.flusher.flush()
        assert heart.database.ended == {run.identity.run_id: RunStatus.SUCCEEDED}

    told(scene)


def test_a_run_whose_end_is_in_its_journal_alone_keeps_its_reason() -> None:
    """An executor died between the two flushes: the list said `failed` and not why."""

    async def scene(heart: Heart) -> None:
        error = RunError("tell", (), 1, "HTTP_STATUS", "The other side refused.")
        identity = heart.identity()
        heart.database.live[identity.run_id] = LiveRow(identity, RunStatus.RUNNING, heart.epoch, 1)
        chunk = encode_chunk([RunStarted("t", PAYLOAD, 1), RunFinished("failed", error, 2)])
        heart.database.journal[identity.run_id] = [chunk]
        heart.incarnation.dispatcher._take(ClaimedRun(identity, 1, True, [chunk]), PLANS["line"])
        (write,) = heart.flusher._batch([], heart.flusher._plain).runs
        assert write.end is not None
        assert write.end.error == msgspec.msgpack.encode(error)

    told(scene)


def _record(run_id: bytes) -> Record:
    request = ExecutionRequest(
        run_id=run_id, project_id=PROJECT, flow_id=PROJECT, version_id="line", trigger_id="t", payload=PAYLOAD
    )
    return Record(0, 0, b"", ExecutionBatch(requests=[request]).SerializeToString())


def test_a_position_waits_for_a_run_that_was_delivered_again_before_it_was_stored() -> None:
    """I2: shares changed while a run was unwritten, its record was read again, and the position passed it alone."""

    async def scene(heart: Heart) -> None:
        heart.database.positions[TOPIC, 0] = Position("generation 1", 0)
        await heart.intake._starts(frozenset({0}))
        record = _record(new_id().bytes)
        run_id = ExecutionBatch.FromString(record.value).requests[0].run_id
        await heart.flusher.flush()
        await heart.intake._take([record])
        await asyncio.sleep(0)  # its task has begun: something to write that nobody waits for
        heart.incarnation._positions.assign(0, "generation 1", 0)  # as after a change of shares
        await heart.intake._take([record])
        queued = RunWrite(
            heart.identity(), True, 0, encode_chunk([RunStarted("t", PAYLOAD, 1)]), RunStatus.QUEUED, None
        )
        heart.flusher.write(PlainWrite(queued))  # somebody else's haste: the flush goes without what can wait
        await heart.flusher.flush()
        passed = heart.database.positions[TOPIC, 0].next_offset > 0
        assert not passed or run_id in heart.database.journal, f"{UUID(bytes=run_id)} would be lost now"
        await heart.flusher.flush()
        assert run_id in heart.database.journal
        await heart.flusher.flush()
        assert heart.database.positions[TOPIC, 0].next_offset == 1

    told(scene)


def test_only_records_of_this_log_are_trimmed() -> None:
    """I7: the topic was made anew, and the position still spoke of the old one: unread records were forgotten."""

    async def scene(heart: Heart) -> None:
        heart.database.positions[TOPIC, 0] = Position("generation 1", 7)
        await heart.intake._trim_once()
        assert heart.log.trimmed == [(0, 7)]
        heart.log.make_anew()
        await heart.intake._trim_once()
        assert heart.log.trimmed == [(0, 7)]

    told(scene)
