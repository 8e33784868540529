"""The cache inside this process (embedded mode).

Decides: expiry by the injected clock, looked at on access and swept now and then; channels within this process alone.
Leaves: bounds of a subscriber to `mailbox`.
Holds: memory is bounded by `max_keys`; beyond it what expires soonest goes.
"""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

from chassis.cache.mailbox import Mailbox
from chassis.cache.port import Window
from chassis.clock import Clock, SystemClock

MAX_KEYS = 100_000
_SWEEP_EVERY = 1000


class MemoryCache:
    """A cache of this process; services of the process share it by sharing the object."""

    def __init__(self, clock: Clock | None = None, max_keys: int = MAX_KEYS) -> None:
        self._clock = clock or SystemClock()
        self._max_keys = max_keys
        self._values: dict[str, tuple[float, bytes]] = {}
        self._windows: dict[str, tuple[float, int]] = {}
        self._listeners: dict[str, list[Mailbox]] = {}
        self._writes = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._values.clear()
        self._windows.clear()

    async def get(self, key: str) -> bytes | None:
        """Return the value, None when there is none (any more)."""
        found = self._values.get(key)
        if found is None:
            return None
        if found[0] <= self._clock.monotonic():
            del self._values[key]
            return None
        return found[1]

    async def set(self, key: str, value: bytes, ttl_s: float) -> None:
        """Set a value for a time."""
        self._values[key] = (self._clock.monotonic() + ttl_s, value)
        self._tidy(self._values)

    async def add(self, key: str, value: bytes, ttl_s: float) -> bool:
        """Set a value where there is none; say whether it was set."""
        if await self.get(key) is not None:
            return False
        await self.set(key, value, ttl_s)
        return True

    async def delete(self, key: str) -> None:
        """Forget a value."""
        self._values.pop(key, None)

    async def incr_window(self, key: str, window_s: float, by: int = 1) -> Window:
        """Count a hit in the key's running window; the first hit starts one."""
        now = self._clock.monotonic()
        ends, count = self._windows.get(key, (-math.inf, 0))
        if ends <= now:
            ends, count = now + window_s, 0
        self._windows[key] = (ends, count + by)
        self._tidy(self._windows)
        return Window(count + by, ends - now)

    async def publish(self, channel: str, message: bytes) -> None:
        """Send a message to all who listen now."""
        for mailbox in self._listeners.get(channel, ()):
            mailbox.put(message)

    @asynccontextmanager
    async def subscribe(self, channel: str) -> AsyncIterator[Mailbox]:
        """Listen while the context is open; iterate over what arrives."""
        mailbox = Mailbox()
        self._listeners.setdefault(channel, []).append(mailbox)
        try:
            yield mailbox
        finally:
            remaining = self._listeners[channel]
            remaining.remove(mailbox)
            if not remaining:
                del self._listeners[channel]

    def _tidy(self, kept: dict[str, tuple[float, bytes]] | dict[str, tuple[float, int]]) -> None:
        self._writes += 1
        if self._writes % _SWEEP_EVERY and len(kept) <= self._max_keys:
            return
        now = self._clock.monotonic()
        for key in [key for key, (ends, _) in kept.items() if ends <= now]:
            del kept[key]
        if len(kept) > self._max_keys:
            by_end = sorted(kept, key=lambda key: kept[key][0])
            for key in by_end[: len(kept) - self._max_keys + self._max_keys // 10]:
                del kept[key]
