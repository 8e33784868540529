"""An event loop whose time is virtual: waiting costs nothing, and the same seed gives the same course."""

from __future__ import annotations

import asyncio
from asyncio.base_events import BaseEventLoop
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

BEGIN_S = 1_000.0
WALL_BEGIN_MS = 1_795_000_000_000


class Deadlock(Exception):  # noqa: N818 - the word for it
    """Nothing can ever happen again: somebody waits for something that nobody will do."""


class _NoSelector:
    """There is no I/O to wait for: instead of sleeping, time moves."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Deadlock
        if timeout > 0:
            self._loop.now += timeout
        return []

    def close(self) -> None:
        pass


class VirtualLoop(BaseEventLoop):
    """Runs callbacks in order of their virtual time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = BEGIN_S
        self._selector = _NoSelector(self)
        self.failures: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    def time(self) -> float:
        return self.now

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


class VirtualClock:
    """chassis.clock.Clock on virtual time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now_ms(self) -> int:
        return WALL_BEGIN_MS + int((self._loop.now - BEGIN_S) * 1000)

    def monotonic(self) -> float:
        return self._loop.now


def run_virtual(main: Coroutine[Any, Any, T], loop: VirtualLoop) -> T:
    """Run a coroutine to its end in virtual time."""
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main)
    finally:
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        asyncio.set_event_loop(None)
        loop.close()
