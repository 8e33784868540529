"""Passwords: hashing and checking them without holding up anyone else.

Decides: bcrypt in threads of its own, how many checks may wait, and that a check for nobody costs as much as a real
one.
Leaves: which account a password belongs to, and how often one may try, to accounts.py and the gateway's limits.
Measured: one hash at cost 12 takes about 0.2 s of a core; the event loop never runs it.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

import bcrypt

from chassis.errors import Unavailable

_MAX_BYTES = 72
"""bcrypt reads no further; sign-up refuses longer ones, so none of them can be right."""
_MAX_WAITING = 64

T = TypeVar("T")


class Passwords:
    """Hashes and checks passwords on a few threads. An async context manager."""

    def __init__(self, cost: int, threads: int = 2) -> None:
        self._cost = cost
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="bcrypt")
        self._waiting = 0
        self._nobodys_hash = b""

    async def __aenter__(self) -> Self:
        self._nobodys_hash = await self.hashed("nobody has this password")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def hashed(self, password: str) -> bytes:
        """The bcrypt hash to store, with a fresh salt. Raises: Unavailable SIGN_IN_BUSY."""
        return await self._in_thread(lambda: bcrypt.hashpw(password.encode(), bcrypt.gensalt(self._cost)))

    async def matches(self, password: str, stored: bytes | None) -> bool:
        """Whether a password is the one behind a stored hash. None for a stored hash costs the same and is never right.

        Raises: Unavailable SIGN_IN_BUSY.
        """
        encoded = password.encode()
        right = await self._in_thread(lambda: bcrypt.checkpw(encoded[:_MAX_BYTES], stored or self._nobodys_hash))
        return right and stored is not None and len(encoded) <= _MAX_BYTES

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._waiting >= _MAX_WAITING:
            raise Unavailable(
                "SIGN_IN_BUSY", "Too many people sign in at this moment. Try again in a few seconds.", retry_after_s=3
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1
