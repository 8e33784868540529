"""A subscriber's queue: bounded, the oldest goes first, and what was lost is said.

Decides: how a slow subscriber is treated. Leaves: where messages come from to the adapters.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from chassis.cache.port import SUBSCRIBER_QUEUE, Lagged


class Mailbox:
    """Filled by an adapter, emptied by `async for`."""

    def __init__(self, limit: int = SUBSCRIBER_QUEUE) -> None:
        self._waiting: deque[bytes] = deque()
        self._limit = limit
        self._missed = 0
        self._interrupted = False
        self._arrived = asyncio.Event()

    def put(self, message: bytes) -> None:
        """Add a message; over the limit the oldest is dropped and counted."""
        if len(self._waiting) >= self._limit:
            self._waiting.popleft()
            self._missed += 1
        self._waiting.append(message)
        self._arrived.set()

    def interrupted(self) -> None:
        """Tell the subscriber that messages may have been missed, nobody knows how many."""
        self._interrupted = True
        self._arrived.set()

    def __aiter__(self) -> AsyncIterator[bytes | Lagged]:
        return self._take()

    async def _take(self) -> AsyncIterator[bytes | Lagged]:
        while True:
            if self._missed or self._interrupted:
                lagged = Lagged(self._missed)
                self._missed, self._interrupted = 0, False
                yield lagged
            elif self._waiting:
                yield self._waiting.popleft()
            else:
                self._arrived.clear()
                await self._arrived.wait()
