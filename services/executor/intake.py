"""Turns accepted events into runs (I2): reads the topic of executions, starts what there is room for, queues the rest.

Decides: where reading begins, what happens to a record, when reading pauses. Always drains: a slow run blocks nothing.
Leaves: storing rows and positions to flush.py (they commit together), the bytes of the log to chassis/log.
Holds: I2, with positions.py and flush_v1.sql: a record below the position is never read; at or above it the run id
decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol
from uuid import UUID

import structlog
from google.protobuf.message import DecodeError
from millrace.events.v1.events_pb2 import ExecutionBatch, ExecutionRequest

from chassis.clock import Clock
from chassis.errors import MillraceError, NotFound, Unavailable
from chassis.failpoints import reach
from chassis.ids import timestamp_ms
from chassis.log.port import Log, LogConsumer, OutRecord, PositionLost, Record
from services.executor.active import ActiveRun, ActiveRuns
from services.executor.driver.driver import Driver
from services.executor.engine.journal import RunStarted, encode_chunk
from services.executor.engine.machine import Machine
from services.executor.engine.plan import Plan
from services.executor.flush import Flusher, PlainWrite
from services.executor.plans import BROKEN, Plans, Unrunnable, unrunnable
from services.executor.positions import Positions, RecordSlot
from services.executor.store import Position, RunIdentity, RunStatus, RunWrite, Store
from services.executor.surroundings import SurroundingsOf

TOPIC = "executions"
DEAD_LETTERS = "executions-dead"
"""Requests that can become no run; the key says why. A person inspects and replays them."""
GROUP = "executor"
AT_ONCE = 200
"""Most records read at once."""
MAX_OPEN_RECORDS = 2_000
"""Records read and not yet stored, after which reading pauses until a flush."""
AWAY_RETRY_S = 0.5
STOPPED_RETRY_S = 10.0
TRIM_S = 10.0
"""How often records that have become runs are forgotten, in seconds."""

log = structlog.get_logger()


class PayloadFiles(Protocol):
    """Where payloads lie that are too large for a record."""

    async def read(self, project_id: str, file_id: str) -> bytes:
        """The packed document. Raises NotFound; Unavailable when the files are away."""


class Intake:
    """Reads executions for one incarnation."""

    def __init__(
        self,
        log_: Log,
        store: Store,
        active: ActiveRuns,
        plans: Plans,
        files: PayloadFiles,
        flusher: Flusher,
        driver: Driver,
        positions: Positions,
        clock: Clock,
        surroundings: SurroundingsOf,
        max_active: int,
    ) -> None:
        self._log = log_
        self._store = store
        self._active = active
        self._plans = plans
        self._files = files
        self._flusher = flusher
        self._driver = driver
        self._positions = positions
        self._clock = clock
        self._surroundings = surroundings
        self._max_active = max_active
        self._oldest_ms = 0
        self._read_before = False
        self._backlog: dict[int, int] = {}

    async def run(self) -> None:
        """Read until cancelled.

        A log or a database that is away is waited for; an impossible position stops intake, loudly.
        """
        while True:
            try:
                await self._read()
            except* Unavailable as errors:
                log.warning("intake_waits", reason=str(errors.exceptions[0]))
                await asyncio.sleep(AWAY_RETRY_S)
            except* PositionLost as errors:
                log.error("intake_stopped", reason=str(errors.exceptions[0]))  # noqa: TRY400 - the sentence says it all
                await asyncio.sleep(STOPPED_RETRY_S)

    async def _read(self) -> None:
        self._flusher.position_lost.clear()
        async with self._log.consumer(TOPIC, GROUP, self._starts) as consumer, asyncio.TaskGroup() as side:
            lost = side.create_task(self._flusher.position_lost.wait())
            trimming = side.create_task(self._trim())
            try:
                while not lost.done():
                    reading = side.create_task(consumer.batch(AT_ONCE))
                    await asyncio.wait({reading, lost}, return_when=asyncio.FIRST_COMPLETED)
                    if not reading.done():
                        reading.cancel()
                        break
                    await self._take(reading.result())
                    await self._room(consumer)
            finally:
                lost.cancel()
                trimming.cancel()

    async def _starts(self, partitions: frozenset[int]) -> Mapping[int, int]:
        """Where reading begins: the stored position, or the beginning of a log that is new, or was made anew (I7)."""
        stored = await self._store.positions(TOPIC)
        epoch = await self._log.epoch(TOPIC)  # after the positions, so that it cannot be older than theirs
        bounds = await self._log.bounds(TOPIC)
        self._oldest_ms = await self._store.oldest_ms()
        # What lay there before this incarnation may have killed the one before it, unseen: it is stored before it
        # begins.
        self._backlog = {partition: bound.next for partition, bound in bounds.items()} if not self._read_before else {}
        starts: dict[int, int] = {}
        self._positions.drop()
        for partition in partitions:
            position = stored.get(partition)
            while position is None or position.log_epoch != epoch:  # again when a late flush of ours moved the old one
                first = bounds[partition].first if partition in bounds else 0
                position = await self._store.start_position(TOPIC, partition, position, Position(epoch, first))
            self._positions.assign(partition, position.log_epoch, position.next_offset)
            starts[partition] = position.next_offset
        self._read_before = True
        log.info("intake_reads", partitions=sorted(partitions))
        return starts

    async def _take(self, records: Sequence[Record]) -> None:
        batches = [(record, await self._requests(record)) for record in records]
        plans = await self._plans.get({request.version_id for _, requests in batches for request in requests})
        for record, requests in batches:
            slot = self._positions.opened(record.partition, record.offset, len(requests))
            at_once = record.offset >= self._backlog.get(record.partition, 0)
            for request in requests:
                if timestamp_ms(UUID(bytes=request.run_id)) < self._oldest_ms:  # I7: its run id may be forgotten
                    await self._bury(request, b"too_old")
                    slot.written()
                    continue
                payload = request.payload or await self._payload(request)
                self._start(request, payload, plans.get(request.version_id), slot, at_once=at_once)
        await reach("intake.taken")

    async def _requests(self, record: Record) -> Sequence[ExecutionRequest]:
        """What a record asks for. One that cannot be read goes to the dead letters as it is, and holds up nothing."""
        try:
            return ExecutionBatch.FromString(record.value).requests
        except DecodeError as error:
            log.error("record_buried", partition=record.partition, offset=record.offset, reason=str(error))  # noqa: TRY400
            await self._log.publish(DEAD_LETTERS, [OutRecord(b"unreadable", record.value)])
            return ()

    async def _bury(self, request: ExecutionRequest, reason: bytes) -> None:
        log.error("execution_buried", run_id=request.run_id.hex(), flow_id=request.flow_id, reason=reason.decode())
        await self._log.publish(
            DEAD_LETTERS, [OutRecord(reason, ExecutionBatch(requests=[request]).SerializeToString())]
        )

    async def _payload(self, request: ExecutionRequest) -> bytes:
        """A payload that was too large for its record; empty when there is none.

        Waits while files is away: that is no failure of a run.
        """
        if not request.payload_file_id:
            return b""
        while True:
            try:
                return await self._files.read(request.project_id, request.payload_file_id)
            except NotFound:
                log.error("payload_missing", run_id=request.run_id.hex(), file_id=request.payload_file_id)  # noqa: TRY400
                return b""
            except MillraceError as error:
                log.warning("intake_waits", reason=error.message)
                await asyncio.sleep(AWAY_RETRY_S)

    def _start(
        self, request: ExecutionRequest, payload: bytes, plan: Plan | None, slot: RecordSlot, *, at_once: bool
    ) -> None:
        if self._in_hand(request.run_id, slot):
            return
        identity = RunIdentity(
            request.run_id,
            request.project_id,
            request.flow_id,
            request.version_id,
            request.trigger_id,
            request.test,
            request.reply_to,
        )
        now_ms = self._clock.now_ms()
        started = RunStarted(request.trigger_id, payload, now_ms)
        if plan is None or not payload:
            self._flusher.write(
                PlainWrite(unrunnable(identity, [started], 0, now_ms, self._why_not(request, payload)), slot)
            )
            return
        if not at_once or len(self._active) >= self._max_active:
            write = RunWrite(identity, True, 0, encode_chunk([started]), RunStatus.QUEUED, None)
            self._flusher.write(PlainWrite(write, slot))
            return
        try:
            machine, commands = Machine.start(
                plan, request.run_id, request.trigger_id, payload, now_ms, surroundings=self._surroundings(identity)
            )
        except Exception:  # one run that we fail at must not end the executor, again after every restart
            log.exception("run_broke", run_id=request.run_id.hex(), flow_id=request.flow_id)
            self._flusher.write(PlainWrite(unrunnable(identity, [started], 0, now_ms, BROKEN), slot))
            return
        run = ActiveRun(identity, plan, machine, now_ms)
        run.slots.append(slot)
        self._active.add(run)
        self._driver.begin(run, commands)

    def _in_hand(self, run_id: bytes, slot: RecordSlot) -> bool:
        """Whether this is a second delivery of a run in hand (I2): its record is passed when the run is written."""
        run = self._active.get(run_id)
        if run is not None and not run.stored:
            run.slots.append(slot)  # it may miss the very next flush, which must not move the position past it
            return True
        if run is not None or self._flusher.holds(run_id):
            slot.written()
            return True
        return False

    def _why_not(self, request: ExecutionRequest, payload: bytes) -> Unrunnable:
        if payload:
            return Unrunnable("VERSION_NOT_RUNNABLE", self._plans.why_not(request.version_id))
        what = f"there is no file {request.payload_file_id}" if request.payload_file_id else "none came with its event"
        return Unrunnable("PAYLOAD_MISSING", f"The payload of this run is missing: {what}. Send the event again.")

    async def _room(self, consumer: LogConsumer) -> None:
        """Back-pressure: read on when enough of what was read is stored."""
        if self._positions.open_records < MAX_OPEN_RECORDS:
            return
        consumer.pause()
        while self._positions.open_records >= MAX_OPEN_RECORDS // 2 and not self._flusher.position_lost.is_set():
            await self._flusher.next_flush()
        consumer.resume()

    async def _trim(self) -> None:
        """Forget records that have become runs: the log is a buffer, the run table is the truth."""
        while True:
            await asyncio.sleep(TRIM_S)
            try:
                await self._trim_once()
            except Unavailable as error:  # reading goes on: records that stay a while longer harm nobody
                log.warning("log_not_trimmed", reason=error.message)

    async def _trim_once(self) -> None:
        stored = await self._store.positions(TOPIC)
        epoch = await self._log.epoch(TOPIC)
        for partition, position in stored.items():
            # I7: an offset of the log before this one names other records here, perhaps some that nobody has read.
            if position.next_offset > 0 and position.log_epoch == epoch:
                await self._log.trim(TOPIC, partition, position.next_offset)
