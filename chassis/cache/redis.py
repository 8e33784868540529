"""The cache in Redis (cluster mode).

Decides: one pool for calls, one connection for all subscriptions of the process; a deadline on every call; counting in
one script, so that a window never stays without its end.
Leaves: what follows when Redis is away to callers; bounds of a subscriber to `mailbox`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, cast

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from chassis.cache.mailbox import Mailbox
from chassis.cache.port import Window
from chassis.errors import Unavailable

_PREFIX = "millrace:"
_TIMEOUT_S = 1.5
_POOL_SIZE = 16
_RECONNECT_S = 0.25
_LISTEN_S = 1.0

_INCR_WINDOW = """
local count = redis.call('INCRBY', KEYS[1], ARGV[2])
local left = redis.call('PTTL', KEYS[1])
if left < 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
  left = tonumber(ARGV[1])
end
return {count, left}
"""

_log = structlog.get_logger(__name__)


class RedisCache:
    """A cache shared by all processes that name the same Redis."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._redis: Redis | None = None
        self._channels: dict[bytes, _Channel] = {}
        self._pubsub: PubSub | None = None
        self._turn = asyncio.Lock()
        self._listener: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        pool = BlockingConnectionPool.from_url(
            self._url,
            max_connections=_POOL_SIZE,
            timeout=_TIMEOUT_S,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=Retry(NoBackoff(), 1),  # one: a connection that the server closed meanwhile
        )
        self._redis = Redis(connection_pool=pool)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._listener is not None:
            self._listener.cancel()
            with suppress(asyncio.CancelledError):
                await self._listener
        await _closed(self._pubsub)
        if self._redis is not None:
            with suppress(RedisError, OSError):
                await self._redis.aclose()
                await self._redis.connection_pool.disconnect()

    async def get(self, key: str) -> bytes | None:
        """Return the value, None when there is none (any more)."""
        with _mapped():
            return cast("bytes | None", await self._client.get(_PREFIX + key))

    async def set(self, key: str, value: bytes, ttl_s: float) -> None:
        """Set a value for a time."""
        with _mapped():
            await self._client.set(_PREFIX + key, value, px=_ms(ttl_s))

    async def add(self, key: str, value: bytes, ttl_s: float) -> bool:
        """Set a value where there is none; say whether it was set."""
        with _mapped():
            return bool(await self._client.set(_PREFIX + key, value, px=_ms(ttl_s), nx=True))

    async def delete(self, key: str) -> None:
        """Forget a value."""
        with _mapped():
            await self._client.delete(_PREFIX + key)

    async def incr_window(self, key: str, window_s: float, by: int = 1) -> Window:
        """Count a hit in the key's running window; the first hit starts one."""
        with _mapped():
            # Not under the name of a value: a key may have both.
            asked = self._client.eval(_INCR_WINDOW, 1, f"{_PREFIX}window:{key}", str(_ms(window_s)), str(by))
            count, left_ms = await cast("Awaitable[list[Any]]", asked)
        return Window(int(count), int(left_ms) / 1000)

    async def publish(self, channel: str, message: bytes) -> None:
        """Send a message to all who listen now."""
        with _mapped():
            await self._client.publish(_PREFIX + channel, message)

    @asynccontextmanager
    async def subscribe(self, channel: str) -> AsyncIterator[Mailbox]:
        """Listen while the context is open; iterate over what arrives."""
        name = (_PREFIX + channel).encode()
        mailbox = Mailbox()
        await self._add(name, mailbox)
        try:
            yield mailbox
        finally:
            await self._remove(name, mailbox)

    @property
    def _client(self) -> Redis:
        if self._redis is None:
            raise RuntimeError("The cache is used before it was opened.")
        return self._redis

    async def _add(self, name: bytes, mailbox: Mailbox) -> None:
        first = name not in self._channels
        channel = self._channels.setdefault(name, _Channel())
        channel.mailboxes.append(mailbox)
        try:
            with _mapped():
                async with asyncio.timeout(_TIMEOUT_S):
                    if first:
                        async with self._turn:
                            await self._ask_for(name)
                    await channel.confirmed.wait()  # what is published next arrives
        except BaseException:
            await self._remove(name, mailbox)
            raise

    async def _remove(self, name: bytes, mailbox: Mailbox) -> None:
        channel = self._channels[name]
        channel.mailboxes.remove(mailbox)
        if channel.mailboxes:
            return
        del self._channels[name]
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(_TIMEOUT_S), self._turn:
                if self._pubsub is not None and name not in self._channels:
                    await self._pubsub.unsubscribe(name)

    async def _ask_for(self, *names: bytes) -> None:
        """Send the request to listen to channels; the listener hears the server's word."""
        if self._pubsub is None:
            pubsub = self._client.pubsub()
            try:
                await pubsub.subscribe(*self._channels)
            except BaseException:
                await _closed(pubsub)
                raise
            self._pubsub = pubsub
        else:
            await self._pubsub.subscribe(*names)
        if self._listener is None:
            self._listener = asyncio.create_task(self._listen(), name="cache-listener")

    async def _listen(self) -> None:
        """Read the one connection for all subscribers; make it anew when it breaks."""
        while True:
            try:
                if self._pubsub is None:
                    async with asyncio.timeout(_TIMEOUT_S), self._turn:
                        if self._channels:
                            await self._ask_for()
                if self._pubsub is None:
                    await asyncio.sleep(_RECONNECT_S)
                    continue
                said = await self._pubsub.get_message(timeout=_LISTEN_S)
            except (RedisError, OSError, TimeoutError) as error:
                _log.warning("cache_listener_away", message=repr(error))
                pubsub, self._pubsub = self._pubsub, None
                await _closed(pubsub)
                await asyncio.sleep(_RECONNECT_S)
                continue
            if said is not None:
                self._hear(said["type"], said["channel"], said["data"])

    def _hear(self, kind: str, name: bytes, data: Any) -> None:
        channel = self._channels.get(name)
        if channel is None:
            return
        if kind == "message":
            for mailbox in channel.mailboxes:
                mailbox.put(data)
        elif kind == "subscribe":
            if channel.confirmed.is_set():  # a second time: the connection was made anew, by us or within the client
                for mailbox in channel.mailboxes:
                    mailbox.interrupted()
            channel.confirmed.set()


@dataclass
class _Channel:
    """Who listens, and whether the server has said that we do."""

    mailboxes: list[Mailbox] = field(default_factory=list)
    confirmed: asyncio.Event = field(default_factory=asyncio.Event)


async def _closed(pubsub: PubSub | None) -> None:
    if pubsub is not None:
        with suppress(RedisError, OSError):
            await pubsub.aclose()  # type: ignore[no-untyped-call]  # redis-py leaves it unannotated


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise Unavailable(
            "CACHE_AWAY", f"Redis cannot be reached: {str(error) or type(error).__name__}.", retry_after_s=1.0
        ) from error
