"""The cache port: what may be lost. `contract.md` says what every adapter promises.

Decides: the few calls there are.
Leaves: where it is kept to `memory` and `redis`; what follows when it is away to callers.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Protocol, Self

SUBSCRIBER_QUEUE = 1024
"""Messages that may wait for a subscriber before the oldest are dropped."""


class Window(NamedTuple):
    """How often a key was hit in the running window, this time included, and when that window ends."""

    hits: int
    resets_in_s: float


@dataclass(frozen=True)
class Lagged:
    """In place of messages that were lost: `missed` of them, 0 when nobody can say how many (a reconnect)."""

    missed: int


class Subscription(Protocol):
    """What arrives on a channel, from the moment the context was entered."""

    def __aiter__(self) -> AsyncIterator[bytes | Lagged]: ...


class Cache(Protocol):
    """Open it as an async context. Raises everywhere: Unavailable CACHE_AWAY."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def get(self, key: str) -> bytes | None:
        """Return the value, None when there is none (any more)."""
        ...

    async def set(self, key: str, value: bytes, ttl_s: float) -> None:
        """Set a value for a time."""
        ...

    async def add(self, key: str, value: bytes, ttl_s: float) -> bool:
        """Set a value where there is none; say whether it was set."""
        ...

    async def delete(self, key: str) -> None:
        """Forget a value."""
        ...

    async def incr_window(self, key: str, window_s: float, by: int = 1) -> Window:
        """Count a hit in the key's running window; the first hit starts one."""
        ...

    async def publish(self, channel: str, message: bytes) -> None:
        """Send a message to all who listen now."""
        ...

    def subscribe(self, channel: str) -> AbstractAsyncContextManager[Subscription]:
        """Listen while the context is open; iterate over what arrives."""
        ...
