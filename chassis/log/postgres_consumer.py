"""Reading a topic of the log in PostgreSQL, from a position that its owner keeps.

Decides: one statement reads all assigned partitions, a share of the batch each; offsets have no gaps, so a gap at the
position means that it was trimmed away.
Leaves: assignment and hints to `postgres_hub`. Holds: nothing is handed out that the owner's answer does not start at.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from chassis.database import Database
from chassis.errors import Unavailable
from chassis.log.port import EARLIEST, LATEST, MAX_BATCH_BYTES, Bounds, OnAssigned, PositionLost, Record, position_lost

_RETRY_S = 0.25
_CHECK_S = 0.5

TOPIC = "SELECT id FROM log.topic WHERE name = $1"
HEADS = "SELECT partition, first_offset, next_offset FROM log.head WHERE topic_id = $1"
# The window keeps a batch of large records small; `octet_length` reads no value that is stored apart.
READ = """SELECT r.partition, r."offset", r.key, r.value
            FROM unnest($2::int[], $3::bigint[]) AS at(partition, start),
                 LATERAL (SELECT s.*, sum(s.size) OVER (ORDER BY s."offset") - s.size AS before
                            FROM (SELECT l.*, octet_length(l.value) AS size FROM log.record l
                                   WHERE l.topic_id = $1 AND l.partition = at.partition AND l."offset" >= at.start
                                   ORDER BY l."offset" LIMIT $4) s) r
           WHERE r.before < $5
           ORDER BY r.partition, r."offset" """

_log = structlog.get_logger(__name__)


class PostgresConsumer:
    """A reader; the hub tells it what to read, its owner where to start."""

    def __init__(self, database: Database, topic: str, on_assigned: OnAssigned) -> None:
        self._database = database
        self._topic = topic
        self._on_assigned = on_assigned
        self._wanted: frozenset[int] | None = None
        self._taken: frozenset[int] | None = None
        self._topic_id: int | None = None
        self._positions: dict[int, int] = {}
        self._lost: PositionLost | None = None
        self._paused = False
        self._turn = 0
        self._caught_up = False
        self._check_at = 0.0
        self._wake = asyncio.Event()

    @property
    def assignment(self) -> frozenset[int]:
        """Return the partitions read at present."""
        return self._taken or frozenset()

    def pause(self) -> None:
        """Hand out nothing until `resume`; the partitions are kept."""
        self._paused = True

    def resume(self) -> None:
        """Go on after `pause`."""
        self._paused = False
        self._wake.set()

    async def batch(self, max_records: int) -> list[Record]:
        """Wait for at least one record; return up to `max_records`, in order per partition. Raises: PositionLost."""
        while True:
            if self._caught_up:  # whatever comes now, comes with a wake
                await self._wake.wait()
            self._caught_up = False
            self._wake.clear()
            try:
                if self._wanted is not None and (self._taken != self._wanted or self._lost is not None):
                    await self._take(self._wanted)
                if self._taken and not self._paused:
                    records = await self._read(self._taken, max_records)
                    if records:
                        self._caught_up = self._all_read(records, max_records)
                        return records
            except Unavailable as away:
                if away.reason != "DATABASE_AWAY":
                    raise
                _log.warning("log_consumer_waits", topic=self._topic, message=away.message)
                await asyncio.sleep(_RETRY_S)
                continue
            await self._wake.wait()

    # -- for the hub --

    def wake(self) -> None:
        """There may be more to read."""
        self._wake.set()

    def positions(self) -> dict[int, int]:
        """Return the offset of the next record of each partition read."""
        return dict(self._positions)

    def reassign(self, partitions: frozenset[int] | None) -> None:
        """Read these partitions from now on. None: the membership was lost; ask the owner again in any case."""
        if partitions is None:
            self._taken = self._wanted = None
        elif partitions != self._wanted:
            self._wanted = partitions
        else:
            return
        self._wake.set()

    def compare(self, topic_id: int | None, heads: Mapping[int, Bounds], positions: Mapping[int, int]) -> None:
        """Wake when `heads` hold more than was read at `positions` (taken before them), or those are impossible."""
        if self._topic_id is not None and topic_id != self._topic_id:
            self._wake.set()
        for partition, position in positions.items():
            held = heads.get(partition)
            if held is None or position != held.next:
                self._wake.set()

    # -- reading --

    async def _take(self, wanted: frozenset[int]) -> None:
        """Ask the owner where to start, and check that such records exist or come next."""
        self._taken, self._positions = None, {}
        answer = await self._on_assigned(wanted)
        topic_id, heads = await self._held()
        positions: dict[int, int] = {}
        for partition in sorted(wanted):
            start = answer.get(partition)
            held = heads.get(partition)
            if start == EARLIEST and held is not None:
                start = held.first
            elif start == LATEST and held is not None:
                start = held.next
            if start is None or held is None or not held.first <= start <= held.next:
                self._lost = position_lost(self._topic, partition, start, held)
                raise self._lost
            positions[partition] = start
        self._topic_id, self._positions, self._taken, self._lost = topic_id, positions, wanted, None

    async def _held(self) -> tuple[int | None, dict[int, Bounds]]:
        topic_id = await self._database.fetchval(TOPIC, self._topic)
        rows = await self._database.fetch(HEADS, topic_id)
        return topic_id, {row["partition"]: Bounds(row["first_offset"], row["next_offset"]) for row in rows}

    async def _read(self, partitions: frozenset[int], max_records: int) -> list[Record]:
        self._turn += 1  # when there are more partitions than records wanted, each gets its turn
        at = sorted(partitions, key=lambda partition: (partition + self._turn) % len(partitions))[:max_records]
        each = max(1, -(-max_records // len(at)))
        starts = [self._positions[partition] for partition in at]
        share_bytes = MAX_BATCH_BYTES // len(at)
        rows: list[Any] = await self._database.fetch(READ, self._topic_id, at, starts, each, share_bytes)
        if self._taken != partitions:
            return []  # reassigned while reading
        if not rows:
            now = asyncio.get_running_loop().time()
            if now >= self._check_at:  # most empty reads only mean that a wake came after its record was read
                self._check_at = now + _CHECK_S
                await self._check_empty()
            return []
        expected = dict(self._positions)
        records: list[Record] = []
        for row in rows[:max_records]:
            record = Record(*row)
            if record.offset != expected[record.partition]:
                await self._fail(record.partition)
            expected[record.partition] = record.offset + 1
            records.append(record)
        self._positions = expected
        return records

    def _all_read(self, records: Sequence[Record], max_records: int) -> bool:
        """Whether a read was so far from its limits that it found all there was."""
        partitions = len(self._taken or ()) or 1
        size = sum(len(record.value) for record in records)
        return len(records) < max_records // (2 * partitions) and size < MAX_BATCH_BYTES // (2 * partitions)

    async def _check_empty(self) -> None:
        """Nothing to read: is that the end, or has the topic changed under us?"""
        topic_id, heads = await self._held()
        for partition, position in self._positions.items():
            held = heads.get(partition) if topic_id == self._topic_id else None
            if held is None or not held.first <= position <= held.next:
                await self._fail(partition)

    async def _fail(self, partition: int) -> None:
        topic_id, heads = await self._held()
        held = heads.get(partition) if topic_id == self._topic_id else None
        self._lost = position_lost(self._topic, partition, self._positions[partition], held)
        raise self._lost
