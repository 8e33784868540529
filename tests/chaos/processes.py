"""Finding and killing processes by what `/proc` tells of them; only ever those below a process of the test."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

PATIENCE_S = 90.0
"""How long anything may take on a busy machine before a test says that it does not happen at all."""


class NotInTimeError(AssertionError):
    """Something that must happen did not, within a generous time."""


def children(pid: int) -> list[int]:
    """The direct children of a process."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found += [int(word) for word in (task / "children").read_text().split()]
    return found


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    found = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def arguments(pid: int) -> list[str]:
    """The command line of a process; empty when it is gone or ending."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Sends a signal to each that is still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


async def until(what: str, holds: Callable[[], bool], *, within_s: float = PATIENCE_S, every_s: float = 0.02) -> None:
    """Returns when `holds`. Raises: NotInTimeError."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            raise NotInTimeError(f"After {within_s:g} s still not: {what}")
        await asyncio.sleep(every_s)


async def gone(pids: Iterable[int]) -> None:
    """Returns when none of the processes runs any more."""
    left = list(pids)
    await until(f"processes {left} are gone", lambda: not any(alive(pid) for pid in left))
