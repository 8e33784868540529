"""The topic of executions in memory: records can be read again and twice, and the topic can be made anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from chassis.log.port import Bounds, OnAssigned, OutRecord, Record, position_lost

PARTITIONS = 2


class SimLog:
    """chassis.log.port.Log, as far as intake uses it."""

    def __init__(self) -> None:
        self._generation = 1
        self._records: list[list[OutRecord]] = [[] for _ in range(PARTITIONS)]
        self.members: list[_Consumer] = []
        self._changed = asyncio.Event()
        self.dead_letters: list[OutRecord] = []
        self.trimmed: list[tuple[int, int]] = []

    async def __aenter__(self) -> SimLog:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def append(self, record: OutRecord, partition: int) -> None:
        self._records[partition].append(record)
        self.wake()

    def make_anew(self) -> None:
        """The topic was deleted with all its records, and is there again, empty, under another epoch."""
        self._generation += 1
        self._records = [[] for _ in range(PARTITIONS)]
        self.wake()

    def wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def publish(self, topic: str, records: Sequence[OutRecord]) -> None:
        self.dead_letters.extend(records)

    async def epoch(self, topic: str) -> str:
        return f"generation {self._generation}"

    async def bounds(self, topic: str) -> dict[int, Bounds]:
        return {partition: Bounds(0, len(records)) for partition, records in enumerate(self._records)}

    @asynccontextmanager
    async def consumer(self, topic: str, group: str | None, on_assigned: OnAssigned) -> AsyncIterator[_Consumer]:
        member = _Consumer(self, on_assigned)
        self.members.append(member)
        self.wake()
        try:
            yield member
        finally:
            self.expel(member)

    def expel(self, member: _Consumer) -> None:
        """Out of the group, as after a silence: its partitions go to the others."""
        if member in self.members:
            self.members.remove(member)
        self.wake()

    async def trim(self, topic: str, partition: int, before_offset: int) -> None:
        self.trimmed.append((partition, before_offset))

    async def delete(self, topic: str) -> None:
        self.make_anew()


class _Consumer:
    def __init__(self, log: SimLog, on_assigned: OnAssigned) -> None:
        self._log = log
        self._on_assigned = on_assigned
        self._next: dict[int, int] = {}
        self._generation = 0

    @property
    def assignment(self) -> frozenset[int]:
        log = self._log
        if self not in log.members:
            return frozenset()
        place = log.members.index(self)
        return frozenset(partition for partition in range(PARTITIONS) if partition % len(log.members) == place)

    async def batch(self, max_records: int) -> list[Record]:
        log = self._log
        while True:
            changed = log._changed
            if self.assignment != self._next.keys() or self._generation != log._generation:
                wanted, self._generation = self.assignment, log._generation
                self._next = dict(await self._on_assigned(wanted))
            for partition, offset in self._next.items():
                records = log._records[partition]
                if offset > len(records):
                    raise position_lost("executions", partition, offset, Bounds(0, len(records)))
                if offset < len(records):
                    taken = records[offset : offset + max_records]
                    self._next[partition] += len(taken)
                    return [Record(partition, offset + n, key, value) for n, (key, value) in enumerate(taken)]
            await changed.wait()

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass
