"""The log port: topics that work travels through. `contract.md` says what every adapter promises.

Decides: the types and the few calls domain code may use.
Leaves: how it is kept to `postgres` and `kafka`; which of them runs to `open_log`; positions to the consumer's owner.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Protocol, Self, TypeAlias

from chassis.errors import Conflict, TooLarge

MAX_RECORD_BYTES = 256 * 1024
MAX_BATCH_BYTES = 8 * 1024 * 1024
PUBLISH_TIMEOUT_S = 10.0

EARLIEST = -2
"""A start offset: the oldest record kept."""
LATEST = -1
"""A start offset: what is published from now on."""


class OutRecord(NamedTuple):
    """A record to publish. Records of one key stay in order."""

    key: bytes
    value: bytes


class Record(NamedTuple):
    """A record as read."""

    partition: int
    offset: int
    key: bytes
    value: bytes


@dataclass(frozen=True)
class Bounds:
    """What a partition holds: offsets `first` to `next - 1`."""

    first: int
    next: int


class PositionLost(Conflict):
    """The position names no record of the topic. Intake stops here until somebody decides; there is no reset."""


OnAssigned: TypeAlias = Callable[[frozenset[int]], Awaitable[Mapping[int, int]]]
"""Asked with all partitions now assigned; answers the offset of the next record of each (or EARLIEST, LATEST)."""


class LogConsumer(Protocol):
    """One member of a group (or a reader of everything), reading one topic."""

    @property
    def assignment(self) -> frozenset[int]:
        """Return the partitions read at present."""
        ...

    async def batch(self, max_records: int) -> list[Record]:
        """Wait for at least one record; return up to `max_records`, in order per partition.

        `on_assigned` is asked from within this call, and what it raises is raised here. Cancelling it loses nothing.
        Raises: PositionLost.
        """
        ...

    def pause(self) -> None:
        """Hand out nothing until `resume`; the partitions are kept."""
        ...

    def resume(self) -> None:
        """Go on after `pause`."""
        ...


class Log(Protocol):
    """Topics. Open it as an async context; a topic is made on first use."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def publish(self, topic: str, records: Sequence[OutRecord]) -> None:
        """Append records; durable on return. Concurrent callers share one commit.

        Raises: Unavailable LOG_AWAY (outcome unknown) or LOG_BUSY (nothing was written); TooLarge.
        """
        ...

    async def epoch(self, topic: str) -> str:
        """Return the text that changes when the topic is made anew. Raises: Unavailable LOG_AWAY."""
        ...

    async def bounds(self, topic: str) -> dict[int, Bounds]:
        """Return what each partition holds. Raises: Unavailable LOG_AWAY."""
        ...

    def consumer(
        self, topic: str, group: str | None, on_assigned: OnAssigned
    ) -> AbstractAsyncContextManager[LogConsumer]:
        """Join `group` (None: read all partitions) while the context is open."""
        ...

    async def trim(self, topic: str, partition: int, before_offset: int) -> None:
        """Forget the records before an offset. Raises: Unavailable LOG_AWAY."""
        ...

    async def delete(self, topic: str) -> None:
        """Delete a topic with all its records; used again, it is made anew under another epoch."""
        ...


def check_sizes(topic: str, records: Sequence[OutRecord]) -> int:
    """Return the bytes of all records together. Raises: TooLarge when one is over the limit."""
    total = 0
    for record in records:
        size = len(record.key) + len(record.value)
        if size > MAX_RECORD_BYTES:
            raise TooLarge(
                "LOG_RECORD_TOO_LARGE",
                f"A record for topic {topic} has {size} bytes; {MAX_RECORD_BYTES} are allowed. Store the body as a "
                "blob and publish its reference.",
            )
        total += size
    return total


def position_lost(topic: str, partition: int, position: int | None, bounds: Bounds | None) -> PositionLost:
    """Return the error for a position that is missing or outside what the partition holds."""
    where = f"partition {partition} of topic {topic}"
    if position is None:
        said = f"There is no position for {where}"
    elif bounds is None:
        said = f"Topic {topic} was deleted or made anew; position {position} of partition {partition} names nothing"
    else:
        held = f"holds records {bounds.first} to {bounds.next - 1}" if bounds.next > bounds.first else "holds no record"
        said = f"Position {position} is impossible: {where} {held} (next offset {bounds.next})"
    return PositionLost(
        "LOG_POSITION_LOST",
        f"{said}. Nothing more is read from it until the position is set by hand.",
        topic=topic,
        partition=partition,
        position=position,
    )
