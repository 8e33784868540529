"""How far each partition of the log may be said to have become runs (I2).

Decides: a position passes a record only when every run of that record, and of all before it, is in the batch being
written or was before.
Leaves: the compare-and-set to the flush function, reading the log to intake.py.
"""

from __future__ import annotations

from collections import deque

from services.executor.store import PositionMove


class RecordSlot:
    """One record of the log and how many of its runs are not written yet."""

    __slots__ = ("missing", "offset")

    def __init__(self, offset: int, missing: int) -> None:
        self.offset = offset
        self.missing = missing

    def written(self) -> None:
        """One more run of this record is in a batch."""
        self.missing -= 1


class _Partition:
    __slots__ = ("log_epoch", "next_offset", "open")

    def __init__(self, log_epoch: str, next_offset: int) -> None:
        self.log_epoch = log_epoch
        self.next_offset = next_offset
        self.open: deque[RecordSlot] = deque()


class Positions:
    """The positions of one topic that this incarnation moves."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._partitions: dict[int, _Partition] = {}

    def assign(self, partition: int, log_epoch: str, next_offset: int) -> None:
        """Begin with a partition where the database says it stands."""
        self._partitions[partition] = _Partition(log_epoch, next_offset)

    def drop(self) -> None:
        """Forget all partitions: somebody else moved one, so who reads what must be asked again."""
        self._partitions.clear()

    def opened(self, partition: int, offset: int, runs: int) -> RecordSlot:
        """Note a record that was read and holds `runs` runs to be written."""
        slot = RecordSlot(offset, runs)
        if partition in self._partitions:
            self._partitions[partition].open.append(slot)
        return slot

    @property
    def open_records(self) -> int:
        """Records read and not yet passed."""
        return sum(len(partition.open) for partition in self._partitions.values())

    def moves(self) -> list[PositionMove]:
        """The moves that the batch being gathered allows. The caller writes them or dies, so they are taken as done."""
        moves: list[PositionMove] = []
        for number, partition in self._partitions.items():
            passed = partition.next_offset
            while partition.open and partition.open[0].missing == 0:
                passed = partition.open.popleft().offset + 1
            if passed != partition.next_offset:
                moves.append(PositionMove(self._topic, number, partition.log_epoch, partition.next_offset, passed))
                partition.next_offset = passed
        return moves
