"""Connections to PostgreSQL: one small pool a process and server, and what a lost connection looks like.

Decides: pool sizes; that a lost or refused connection is `Unavailable("DATABASE_AWAY")`, never a driver's exception,
and that the pool mends itself once the server is back; that nothing of a session outlives a transaction (pgbouncer).
Leaves: statements to the stores; sessions (LISTEN, advisory locks) to `connect_directly`, which bypasses a pooler.
Holds: a connection goes back without a reset query (one round trip saved a use), so no code may SET, LISTEN or lock per
session on a pooled connection. An unfinished transaction is rolled back all the same.
One way to the database, asyncpg: importing SQLAlchemy beside it took a third of every start and 20 MiB a process; only
migrations do, when there is something to do.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

import asyncpg

from chassis.errors import Unavailable

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Pool = asyncpg.Pool[asyncpg.Record]
    Connection = asyncpg.Connection[asyncpg.Record]
    Pooled = PoolConnectionProxy[asyncpg.Record]
else:
    Pool, Connection, Pooled = asyncpg.Pool, asyncpg.Connection, asyncpg.Connection

DEFAULT_POOL_SIZE = 8
RETRY_AFTER_S = 1.0

_CONNECT_TIMEOUT_S = 5.0
_ACQUIRE_TIMEOUT_S = 10.0
_STATEMENT_TIMEOUT_S = 60.0
_IDLE_CLOSE_S = 120.0
_STATEMENTS_KEPT = 200

# What says "the server is not there", as opposed to "the statement is wrong".
_AWAY = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.InsufficientResourcesError,  # too many connections, a full disk: room comes back, the statement was right
    asyncpg.TransactionRollbackError,  # the loser of two that waited for each other: nothing was written, repeat it
    asyncpg.IdleInTransactionSessionTimeoutError,  # this process stood still in a transaction, and lost it
    asyncpg.ReadOnlySQLTransactionError,  # a standby after a fail-over: the next connection finds the primary
    asyncpg.exceptions.ConnectionDoesNotExistError,
    TimeoutError,
)


@dataclass
class _Shared:
    """The pools of one server in one event loop, and how many use them."""

    pool: Pool
    users: int = 1
    opened: asyncio.Event = field(default_factory=asyncio.Event)


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, bool], _Shared]] = WeakKeyDictionary()


class Database:
    """The database as one service sees it; services of one process that name the same server share its connections.

    `schema` is the service's own; every statement names it (nothing relies on a search path). `statement_cache` is
    switched off behind a pooler that does not follow prepared statements (pgbouncer before 1.21).
    """

    def __init__(
        self, url: str, schema: str = "", pool_size: int = DEFAULT_POOL_SIZE, *, statement_cache: bool = True
    ) -> None:
        self.url = url
        self.schema = schema
        self._size = pool_size
        self._statement_cache = statement_cache
        self._open: _Shared | None = None

    async def __aenter__(self) -> Self:
        pools = _shared.setdefault(asyncio.get_running_loop(), {})
        key = (self.url, self._statement_cache)
        found = pools.get(key)
        if found is None:
            with mapped():
                pool = await _open_pool(self.url, self._size, self._statement_cache)
            if key in pools:  # another service was faster meanwhile; its pool serves both
                await pool.close()
                found = pools[key]
                found.users += 1
            else:
                found = pools[key] = _Shared(pool)
        else:
            found.users += 1
        self._open = found
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        mine, self._open = self._open, None
        if mine is None:
            return
        mine.users -= 1
        if mine.users == 0:
            _shared[asyncio.get_running_loop()].pop((self.url, self._statement_cache), None)
            try:
                await asyncio.wait_for(mine.pool.close(), _CONNECT_TIMEOUT_S)
            except TimeoutError:
                mine.pool.terminate()

    @property
    def pool(self) -> Pool:
        """Return the asyncpg pool; `acquire`, `fetch` … below map its errors."""
        if self._open is None:
            raise RuntimeError("The database is used before it was opened or after it was closed.")
        return self._open.pool

    @contextlib.asynccontextmanager
    async def acquire(self) -> AsyncIterator[Pooled]:
        """Lend a raw connection of the pool. Raises: Unavailable DATABASE_AWAY."""
        with mapped():
            async with self.pool.acquire(timeout=_ACQUIRE_TIMEOUT_S) as connection:
                yield connection

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Pooled]:
        """Lend a raw connection in a transaction: committed at the end, rolled back when the body raises."""
        async with self.acquire() as connection, connection.transaction():
            yield connection

    async def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Return the rows of one statement."""
        async with self.acquire() as connection:
            return await connection.fetch(query, *arguments)

    async def fetchrow(self, query: str, *arguments: object) -> asyncpg.Record | None:
        """Return the first row of one statement, None when there is none."""
        async with self.acquire() as connection:
            return await connection.fetchrow(query, *arguments)

    async def fetchval(self, query: str, *arguments: object) -> Any:
        """Return the first value of the first row; its type is the column's, as the statement says."""
        async with self.acquire() as connection:
            return await connection.fetchval(query, *arguments)

    async def execute(self, query: str, *arguments: object) -> str:
        """Run one statement in a transaction of its own; return the server's command tag."""
        async with self.acquire() as connection:
            return await connection.execute(query, *arguments)

    async def executemany(self, query: str, rows: Sequence[Sequence[object]]) -> None:
        """Run one statement for each row, all or none."""
        async with self.acquire() as connection:
            await connection.executemany(query, rows)


@contextlib.contextmanager
def mapped() -> Iterator[None]:
    """Turn every way a driver says that the server is away into `Unavailable("DATABASE_AWAY")`."""
    try:
        yield
    except _AWAY as error:
        raise _away(error) from error
    except asyncpg.InterfaceError as error:
        # asyncpg has one class for misuse and for a connection that closed under way; only the words tell them apart.
        if "closed" in str(error) or "closing" in str(error) or "released" in str(error):
            raise _away(error) from error
        raise
    except asyncpg.InternalClientError as error:
        # The server's last words were read, its hanging up not yet: the connection takes no statement any more.
        if "cannot switch to state" in str(error):
            raise _away(error) from error
        raise


async def connect_directly(url: str) -> Connection:
    """Open a connection of one's own, for what lives per session (LISTEN, advisory locks). The caller closes it.

    Raises: Unavailable DATABASE_AWAY.
    """
    with mapped():
        return await asyncpg.connect(url, timeout=_CONNECT_TIMEOUT_S, server_settings={"application_name": "millrace"})


def _away(error: BaseException) -> Unavailable:
    said = str(error).strip().splitlines()
    why = said[0] if said and said[0] else type(error).__name__
    return Unavailable(
        "DATABASE_AWAY",
        f"The database cannot be reached: {why[:300]}. Repeat in a moment.",
        retry_after_s=RETRY_AFTER_S,
    )


async def _open_pool(url: str, size: int, statement_cache: bool) -> Pool:
    pool = await asyncpg.create_pool(
        url,
        min_size=0,
        max_size=size,
        max_inactive_connection_lifetime=_IDLE_CLOSE_S,
        timeout=_CONNECT_TIMEOUT_S,
        command_timeout=_STATEMENT_TIMEOUT_S,
        statement_cache_size=_STATEMENTS_KEPT if statement_cache else 0,
        reset=_no_reset,
        server_settings={"application_name": "millrace"},
    )
    try:
        async with pool.acquire():  # a server that is away, or refuses us, shows at the start
            return pool
    except BaseException:
        pool.terminate()
        raise


async def _no_reset(connection: object) -> None:
    """Send nothing: asyncpg itself has rolled back an open transaction before it asks for this."""
