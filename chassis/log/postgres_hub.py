"""One listening connection a process: tells consumers that there may be more, and who reads which partition.

Decides: membership of a group as session-level advisory locks of this connection (they go with the process, however it
ends); the share of each member, a pure function of who is there; a poll every second that makes the hints whole.
Leaves: reading to `postgres_consumer`. Holds: NOTIFY is a hint, never the only word: after every (re)connect and once a
second all heads and members are looked at.
"""

import asyncio
import secrets
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import asyncpg
import structlog

from chassis.database import connect_directly, mapped
from chassis.errors import Unavailable
from chassis.log.port import Bounds
from chassis.log.postgres_consumer import PostgresConsumer
from chassis.log.schema import CHANNEL

if TYPE_CHECKING:
    from chassis.database import Connection

POLL_INTERVAL_S = 1.0
_RECONNECT_S = 0.25
_CALL_TIMEOUT_S = 5.0
_MEMBERS_CHANGED = "members"

HEADS = """SELECT t.name, t.id, h.partition, h.first_offset, h.next_offset
             FROM log.topic t JOIN log.head h ON h.topic_id = t.id WHERE t.name = ANY($1)"""
MEMBERS = """SELECT classid::bigint AS group_number, objid::bigint AS member
               FROM pg_locks
              WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND classid::bigint = ANY($1)
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
TAKE_SEAT = "SELECT pg_try_advisory_lock($1::int, $2::int)"
GIVE_SEAT = "SELECT pg_advisory_unlock($1::int, $2::int)"

_log = structlog.get_logger(__name__)


@dataclass(eq=False)
class Membership:
    """A consumer in its group: `member` is its seat, the number of its lock. Without a group: all partitions."""

    consumer: PostgresConsumer
    topic: str
    group_number: int | None
    member: int = 0


class Hub:
    """The listening connection and the consumers it serves."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._memberships: list[Membership] = []
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()  # one statement at a time on the connection
        self._look = asyncio.Event()
        self._topic_numbers: dict[int, str] = {}
        self._task: asyncio.Task[None] | None = None
        self.users = 0

    async def join(self, consumer: PostgresConsumer, topic: str, group: str | None) -> Membership:
        """Take a seat; the partitions follow with the next look, which is at once."""
        number = zlib.crc32(f"{topic}\0{group}".encode()) & 0x7FFFFFFF if group is not None else None
        membership = Membership(consumer, topic, number)
        self._memberships.append(membership)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="log-hub")
        elif self._connection is not None:
            with suppress(Unavailable):  # the reconnect seats everybody
                await self._seat(membership)
        self._look.set()
        return membership

    async def leave(self, membership: Membership) -> None:
        """Give the seat back, so that the others take over at once."""
        self._memberships.remove(membership)
        if membership.member and membership.group_number is not None:
            with suppress(Unavailable):
                await self._call(GIVE_SEAT, membership.group_number, membership.member)
                await self._call("SELECT pg_notify($1, $2)", CHANNEL, _MEMBERS_CHANGED)
        self._look.set()

    async def close(self) -> None:
        """End the connection."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._drop()

    async def _run(self) -> None:
        while True:
            try:
                if self._connection is None or self._connection.is_closed():
                    await self._connect()
                self._look.clear()
                await self._look_around()
            except (Unavailable, asyncpg.PostgresError) as error:
                _log.warning("log_hub_away", message=str(error))
                await self._drop()
                await asyncio.sleep(_RECONNECT_S)
                continue
            except Exception:  # noqa: BLE001  # logged; without this loop nobody would read again, so it begins anew
                _log.exception("log_hub_failed")
                await self._drop()
                await asyncio.sleep(_RECONNECT_S)
                continue
            with suppress(TimeoutError):
                # Not `wait_for`, which in Python 3.11 swallows a cancellation that comes with the event.
                async with asyncio.timeout(POLL_INTERVAL_S):
                    await self._look.wait()

    async def _connect(self) -> None:
        await self._drop()
        connection = await connect_directly(self._url)
        try:
            with mapped():
                await connection.add_listener(CHANNEL, self._heard)
                connection.add_termination_listener(lambda _: self._look.set())
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection
        for membership in self._memberships:
            membership.member = 0
            await self._seat(membership)
            membership.consumer.reassign(None)  # the seat was lost for a while: somebody else may have read

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _seat(self, membership: Membership) -> None:
        if membership.group_number is None:
            return
        while not membership.member:
            wanted = secrets.randbelow(2**31 - 1) + 1
            if await self._call(TAKE_SEAT, membership.group_number, wanted):
                membership.member = wanted
        await self._call("SELECT pg_notify($1, $2)", CHANNEL, _MEMBERS_CHANGED)

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        if payload == _MEMBERS_CHANGED:
            self._look.set()
            return
        name = self._topic_numbers.get(int(str(payload)))
        if name is None:
            self._look.set()
            return
        for membership in self._memberships:
            if membership.topic == name:
                membership.consumer.wake()

    async def _look_around(self) -> None:
        """Read heads and members; hand each consumer its share and what its topic holds."""
        if not self._memberships:
            return
        before = {membership: membership.consumer.positions() for membership in self._memberships}
        topics = sorted({membership.topic for membership in before})
        groups = sorted({m.group_number for m in before if m.group_number is not None})
        heads: dict[str, dict[int, Bounds]] = {name: {} for name in topics}
        numbers: dict[str, int] = {}
        for row in await self._rows(HEADS, topics):
            heads[row["name"]][row["partition"]] = Bounds(row["first_offset"], row["next_offset"])
            numbers[row["name"]] = row["id"]
        self._topic_numbers = {number: name for name, number in numbers.items()}
        seats: dict[int, list[int]] = {number: [] for number in groups}
        for row in await self._rows(MEMBERS, groups) if groups else ():
            seats[row["group_number"]].append(row["member"])
        for membership, positions in before.items():
            consumer = membership.consumer
            partitions = _share(membership, sorted(heads[membership.topic]), seats)
            consumer.reassign(partitions)
            consumer.compare(numbers.get(membership.topic), heads[membership.topic], positions)

    async def _rows(self, query: str, argument: list[str] | list[int]) -> list[asyncpg.Record]:
        connection = self._connection
        if connection is None:
            raise Unavailable("DATABASE_AWAY", "The listening connection is gone.", retry_after_s=1.0)
        async with self._turn:
            with mapped():
                return await connection.fetch(query, argument, timeout=_CALL_TIMEOUT_S)

    async def _call(self, query: str, *arguments: object) -> object:
        connection = self._connection
        if connection is None:
            raise Unavailable("DATABASE_AWAY", "The listening connection is gone.", retry_after_s=1.0)
        async with self._turn:
            with mapped():
                return await connection.fetchval(query, *arguments, timeout=_CALL_TIMEOUT_S)


def _share(membership: Membership, partitions: list[int], seats: dict[int, list[int]]) -> frozenset[int]:
    """Return a member's partitions: every n-th, by its place among the members present."""
    if membership.group_number is None:
        return frozenset(partitions)
    present = sorted(seats[membership.group_number])
    if membership.member not in present:
        return frozenset()
    place = present.index(membership.member)
    return frozenset(partition for partition in partitions if partition % len(present) == place)


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Hub]] = WeakKeyDictionary()


@asynccontextmanager
async def shared_hub(url: str) -> AsyncIterator[Hub]:
    """Lend the process's hub for a server, opened with its first user and closed with its last."""
    hubs = _hubs.setdefault(asyncio.get_running_loop(), {})
    hub = hubs.setdefault(url, Hub(url))
    hub.users += 1
    try:
        yield hub
    finally:
        hub.users -= 1
        if hub.users == 0:
            hubs.pop(url, None)
            await hub.close()
