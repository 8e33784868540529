"""Reading a topic in Kafka, from a position that its owner keeps; Kafka is told none.

Decides: Kafka's group gives out partitions (eager), nothing else; after each assignment the owner is asked from within
`batch`, then reading starts there; the topic's epoch is looked at every few seconds, because a topic made anew and
grown past the position would be read on as if nothing had happened.
Leaves: connections to aiokafka, which reconnects by itself. Holds: what was fetched before a new assignment is dropped.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from chassis.errors import Unavailable
from chassis.log.port import EARLIEST, LATEST, MAX_BATCH_BYTES, Bounds, OnAssigned, PositionLost, Record, position_lost

_LISTEN_MS = 250
_RETRY_S = 0.25
_EPOCH_INTERVAL_S = 5.0
_SESSION_MS = 6000
_HEARTBEAT_MS = 1000
_STOP_TIMEOUT_S = 5.0
# Back-pressure may last: a member that reads nothing keeps its partitions as long as it lives (its heart beats apart).
_MAX_POLL_MS = 24 * 3600 * 1000

_log = structlog.get_logger(__name__)


class KafkaConsumer(ConsumerRebalanceListener):
    """A member of a group, or a reader of all partitions."""

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        group: str | None,
        on_assigned: OnAssigned,
        epoch_now: Callable[[str], Awaitable[str | None]],
    ) -> None:
        self._topic = topic
        self._group = group
        self._on_assigned = on_assigned
        self._epoch_now = epoch_now
        self._epoch: str | None = None
        self._epoch_due = 0.0
        self._wanted: frozenset[int] = frozenset()
        self._wanted_turn = 0  # grows with each assignment
        self._taken_turn = 0  # the assignment whose positions the owner has given
        self._positions: dict[int, int] = {}
        self._paused = False
        self._wake = asyncio.Event()
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            session_timeout_ms=_SESSION_MS,
            heartbeat_interval_ms=_HEARTBEAT_MS,
            max_poll_interval_ms=_MAX_POLL_MS,
            fetch_max_bytes=MAX_BATCH_BYTES,
            max_partition_fetch_bytes=MAX_BATCH_BYTES // 4,
        )

    async def start(self, partitions: int) -> None:
        """Connect and join. Raises: KafkaError."""
        try:
            await self._consumer.start()
        except BaseException:
            await self.stop()
            raise
        if self._group is not None:
            self._consumer.subscribe([self._topic], listener=self)
            return
        everything = [TopicPartition(self._topic, partition) for partition in range(partitions)]
        self._consumer.assign(everything)
        self._assigned(everything)

    async def stop(self) -> None:
        """Leave the group and disconnect."""
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await self._consumer.stop()
        except (KafkaError, TimeoutError, OSError) as error:
            _log.debug("kafka_consumer_dropped", topic=self._topic, error=repr(error))

    @property
    def assignment(self) -> frozenset[int]:
        """Return the partitions read at present."""
        return self._wanted if self._taken_turn == self._wanted_turn else frozenset()

    def pause(self) -> None:
        """Hand out nothing until `resume`; aiokafka fetches one answer ahead, then stops."""
        self._paused = True

    def resume(self) -> None:
        """Go on after `pause`."""
        self._paused = False
        self._wake.set()

    async def batch(self, max_records: int) -> list[Record]:
        """Wait for at least one record; return up to `max_records`, in order per partition. Raises: PositionLost."""
        while True:
            self._wake.clear()
            try:
                if self._taken_turn != self._wanted_turn:
                    await self._take()
                    continue
                if self._paused or not self._wanted:
                    await self._wake.wait()
                    continue
                await self._check_epoch()
                records = await self._fetch(max_records)
            except PositionLost:
                self._taken_turn = 0
                raise
            except (KafkaError, OSError) as error:
                _log.warning("log_consumer_waits", topic=self._topic, message=repr(error))
                await asyncio.sleep(_RETRY_S)
                continue
            if records:
                return records

    # -- assignment --

    async def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:
        """Kafka is about to share out anew; what we have stays ours until it has."""

    async def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        """Kafka has shared out; the owner is asked by the next `batch`."""
        self._assigned(assigned)

    def _assigned(self, assigned: list[TopicPartition]) -> None:
        for partition in assigned:
            # Some position, held still: else aiokafka would ask Kafka for one, which knows none.
            self._consumer.seek(partition, 0)
            self._consumer.pause(partition)
        self._wanted = frozenset(partition.partition for partition in assigned)
        self._wanted_turn += 1
        self._wake.set()

    async def _take(self) -> None:
        """Ask the owner where to start, check that it is possible, and go there."""
        turn, wanted = self._wanted_turn, self._wanted
        answer = await self._on_assigned(wanted)
        self._epoch, self._epoch_due = await self._epoch_now(self._topic), time.monotonic() + _EPOCH_INTERVAL_S
        held = await self._held(wanted)
        positions = self._possible(answer, wanted, held)
        if turn != self._wanted_turn:
            return  # shared out anew meanwhile: ask again
        try:
            for partition, position in positions.items():
                self._consumer.seek(TopicPartition(self._topic, partition), position)
                self._consumer.resume(TopicPartition(self._topic, partition))
        except IllegalStateError:  # being shared out anew at this moment; the listener will tell
            await asyncio.sleep(_RETRY_S)
            return
        self._positions, self._taken_turn = positions, turn

    def _possible(
        self, answer: Mapping[int, int], wanted: frozenset[int], held: Mapping[int, Bounds]
    ) -> dict[int, int]:
        positions: dict[int, int] = {}
        for partition in sorted(wanted):
            start, bounds = answer.get(partition), held[partition]
            if start == EARLIEST:
                start = bounds.first
            elif start == LATEST:
                start = bounds.next
            if start is None or not bounds.first <= start <= bounds.next:
                raise position_lost(self._topic, partition, start, bounds)
            positions[partition] = start
        return positions

    async def _held(self, partitions: frozenset[int]) -> dict[int, Bounds]:
        asked = [TopicPartition(self._topic, partition) for partition in partitions]
        if not asked:
            return {}
        first = await self._consumer.beginning_offsets(asked)
        next_ = await self._consumer.end_offsets(asked)
        return {one.partition: Bounds(first[one], next_[one]) for one in asked}

    # -- reading --

    async def _fetch(self, max_records: int) -> list[Record]:
        turn = self._taken_turn
        try:
            got = await self._consumer.getmany(timeout_ms=_LISTEN_MS, max_records=max_records)
        except OffsetOutOfRangeError as error:
            for partition, position in error.args[0].items():
                held = await self._held(frozenset({partition.partition}))
                raise position_lost(self._topic, partition.partition, position, held[partition.partition]) from error
            raise
        except NoOffsetForPartitionError:  # of the moment between an assignment and its `seek`
            return []
        if turn != self._wanted_turn:
            return []
        records = [
            Record(partition.partition, message.offset, message.key or b"", message.value or b"")
            for partition, messages in got.items()
            for message in messages
        ]
        for record in records:
            self._positions[record.partition] = record.offset + 1
        return records

    async def _check_epoch(self) -> None:
        """Look whether the topic is still the one whose offsets the owner gave."""
        if time.monotonic() < self._epoch_due:
            return
        self._epoch_due = time.monotonic() + _EPOCH_INTERVAL_S
        try:
            async with asyncio.timeout(_EPOCH_INTERVAL_S):
                now = await self._epoch_now(self._topic)
        except (KafkaError, Unavailable, TimeoutError, OSError):
            return  # the cluster is away: nothing can be read either
        if now != self._epoch:
            partition = min(self._wanted)
            raise position_lost(self._topic, partition, self._positions.get(partition), None)
