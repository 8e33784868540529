"""What the heart of the executor asks of its database, as plain values and one Protocol.

Decides: the shape of a flush, and which failures it can meet.
Leaves: SQL to postgres_store.py; when to flush to flush.py. The simulation has a store of its own; one contract suite
holds for both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple, Protocol


class RunStatus(IntEnum):
    """The life of a run; numbers are those of the wire and of the tables."""

    QUEUED = 1
    RUNNING = 2
    PAUSED = 3
    CANCELING = 4
    SUCCEEDED = 5
    FAILED = 6
    CANCELED = 7
    TIMED_OUT = 8
    MEMORY_EXCEEDED = 9
    LOG_TOO_LARGE = 10
    INTERNAL_ERROR = 11

    @property
    def ended(self) -> bool:
        """Whether a run in this state will never change again."""
        return self >= RunStatus.SUCCEEDED


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """What a run is of; fixed when its event was accepted. `run_id` is 16 bytes, other ids are text."""

    run_id: bytes
    project_id: str
    flow_id: str
    version_id: str
    trigger_id: str
    test: bool = False
    reply_to: str = ""


@dataclass(slots=True)
class RunEnd:
    """How a run ended. Times are milliseconds since 1970; `error` is a journal-encoded error or None."""

    status: RunStatus
    finished_at_ms: int
    steps_finished: int
    error: bytes | None = None


@dataclass(slots=True)
class RunWrite:
    """What one flush writes of one run: its row when it is new, one chunk of its journal, its end."""

    identity: RunIdentity
    new: bool
    chunk_no: int
    chunk: bytes | None
    status: RunStatus
    started_at_ms: int | None
    end: RunEnd | None = None


class PositionMove(NamedTuple):
    """One partition of the log became runs from `seen_offset` up to, but not including, `next_offset` (I2)."""

    topic: str
    partition: int
    log_epoch: str
    seen_offset: int
    next_offset: int


class StoreKey(NamedTuple):
    """Names one value of the store piece. `scope` is empty for the project, else a flow id."""

    project_id: str
    scope: str
    key: str


@dataclass(slots=True)
class FlushBatch:
    """One flush of one incarnation."""

    epoch: int
    flush_no: int
    positions: Sequence[PositionMove] = ()
    runs: Sequence[RunWrite] = ()
    values: Mapping[StoreKey, bytes | None] = field(default_factory=dict)


@dataclass(slots=True)
class ClaimedRun:
    """A queued run that this incarnation now owns, with its journal so far."""

    identity: RunIdentity
    started_at_ms: int | None
    begun: bool
    """Whether somebody had it in hand before."""
    chunks: list[bytes]


class Claim(NamedTuple):
    """One claim of an incarnation: its number, whether it is asked for again, how much may be taken, whose turn it is.

    Projects take turns in the order of their ids, beginning behind `after`, the last one served; None: with the first.
    """

    number: int
    again: bool
    limit: int
    per_project: int
    after: str | None = None


class Position(NamedTuple):
    """How far a partition of the log became runs."""

    log_epoch: str
    next_offset: int


class Beat(NamedTuple):
    """A living incarnation and how often it has flushed."""

    epoch: int
    beat: int


class Fenced(Exception):  # noqa: N818 - said as it reads where it is raised
    """This incarnation is no longer alive.

    Everything in its hands belongs to others now (I8). The process must start over.
    """


class PositionMoved(Exception):  # noqa: N818 - said as it reads where it is raised
    """A position is not where this incarnation left it: another one reads that partition now. Nothing was written."""


class FlushRefused(Exception):  # noqa: N818 - said as it reads where it is raised
    """The database refused the batch for its data. Nothing was written; a smaller batch may pass."""


class FlushScope(Protocol):
    """A transaction that holds the locks of some store keys."""

    values: Mapping[StoreKey, bytes]
    """What the locked keys hold; a key that holds nothing is absent."""

    async def flush(self, batch: FlushBatch) -> set[bytes]:
        """As `Store.flush`; durable when the scope was left without an error."""


class Store(Protocol):
    """The database as the heart sees it.

    Every call may raise `chassis.errors.Unavailable` when the database is away.
    """

    async def begin_incarnation(self, name: str, *, sole: bool) -> int:
        """Answer a new epoch. `sole`: no other executor can be alive, so mark all dead and queue their runs at once."""

    async def flush(self, batch: FlushBatch) -> set[bytes]:
        """Commit `batch`; answer the run ids that were stored before and of which nothing was written.

        Raises Fenced, PositionMoved, FlushRefused. Unavailable leaves open whether it was committed: ask `last_flush`.
        """

    def locked(self, keys: Sequence[StoreKey]) -> AbstractAsyncContextManager[FlushScope]:
        """Lock store keys and read them, for a flush that changes them."""

    async def last_flush(self, epoch: int) -> tuple[int, set[bytes]]:
        """The newest committed flush number of `epoch` and what that flush found stored already. Raises Fenced."""

    async def claim(self, epoch: int, claim: Claim) -> list[ClaimedRun]:
        """Take queued runs into the hands of `epoch`, fairly over projects. Raises Fenced.

        Unavailable leaves open whether runs were taken: ask with the same number and `again`.
        """

    async def beats(self) -> list[Beat]:
        """All incarnations that are marked alive."""

    async def take_over(self, epoch: int, seen_beat: int) -> int | None:
        """Mark `epoch` dead unless it moved since `seen_beat`, and queue its runs; how many, or None when it lives."""

    async def hand_over(self, epoch: int) -> int | None:
        """End `epoch`, which stops by itself; queue its runs without counting a take-over. None when it was dead."""

    async def positions(self, topic: str) -> dict[int, Position]:
        """The stored positions of a topic."""

    async def start_position(self, topic: str, partition: int, old: Position | None, new: Position) -> Position:
        """Set a position that is missing, or of an older log (I7), if nobody was faster; answer what stands then."""

    async def oldest_ms(self) -> int:
        """The time of the oldest run that can be stored, in milliseconds since 1970.

        An older request can be no run any more (I7).
        """

    async def prepare_partitions(self, weeks_ahead: int) -> None:
        """Make the partitions of the next weeks."""
