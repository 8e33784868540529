"""Time, injected: nobody outside this module asks the system for it.

Decides: two clocks. Wall time is for what people and other machines see; monotonic time is for every duration, time-out
and beat, because wall clocks jump and differ between machines.
Leaves: sleeping to asyncio. A test hands a `ManualClock` in and turns it itself.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def now_ms(self) -> int:
        """Return the Unix time in milliseconds."""
        ...

    def monotonic(self) -> float:
        """Return seconds since some fixed moment; never goes back."""
        ...


class SystemClock:
    """The clocks of this machine."""

    def now_ms(self) -> int:
        """Return the Unix time in milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Return seconds since the machine started."""
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is turned."""

    def __init__(self, start_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = start_ms
        self._monotonic = 0.0

    def now_ms(self) -> int:
        """Return the time that was set, in milliseconds."""
        return self._now_ms

    def monotonic(self) -> float:
        """Return the seconds turned so far."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self._now_ms += round(seconds * 1000)
        self._monotonic += seconds

    def set_wall(self, now_ms: int) -> None:
        """Step the wall clock alone, as a correction by the operating system does."""
        self._now_ms = now_ms
