"""The cache: what may be lost (limits, hints, live updates), in this process or in Redis. Promises: `contract.md`."""

import asyncio
from typing import Protocol
from weakref import WeakKeyDictionary

from chassis.cache.memory import MemoryCache
from chassis.cache.port import Cache, Lagged, Subscription, Window

__all__ = ["Cache", "Lagged", "MemoryCache", "Subscription", "Window", "open_cache"]


_own: WeakKeyDictionary[asyncio.AbstractEventLoop, MemoryCache] = WeakKeyDictionary()
"""The one cache of each event loop's process without Redis: its services must see each other's marks and messages."""


class CacheSettings(Protocol):
    """What decides where the cache is."""

    @property
    def redis_url(self) -> str:
        """Return where Redis is; empty: the cache is in this process."""
        ...


def open_cache(settings: CacheSettings) -> Cache:
    """Return the cache of this installation, to be opened as an async context; the only place that chooses.

    Without Redis all services of a process get the same one. Call it inside the event loop.
    """
    if settings.redis_url:
        # Imported here: who has no Redis pays nothing for its client.
        from chassis.cache.redis import RedisCache

        return RedisCache(settings.redis_url)
    return _own.setdefault(asyncio.get_running_loop(), MemoryCache())
