"""Named points where tests make a process die, fail, wait or hang, and learn whether it got there.

Decides: the grammar of `MILLRACE_FAILPOINTS`, what each action does, that a reached point is recorded before it acts.
Leaves: which points there are to the modules that own the moments: `failpoints.hit("journal.flushed")`.
Holds: unarmed, a point costs one comparison.

`MILLRACE_FAILPOINTS=intake.committed=crash@5,journal.flushed=sleep:2` kills this process (SIGKILL, no clean-up)
when it reaches the first point for the fifth time, and waits 2 s each time at the second. Actions: `crash`, `error`,
`sleep:SECONDS`, `hang`; `@N`: at the Nth time only. With `MILLRACE_FAILPOINT_LOG=/file` each reached point is appended
to that file as `name count pid`, and `@N` counts over all processes and lives that share the file: a point that kills
its process at the Nth time kills it once, however often it is started again.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from chassis.errors import StartRefused

_ACTIONS = frozenset({"crash", "error", "sleep", "hang"})


class FailpointError(RuntimeError):
    """What the action `error` raises: nothing that any code expects."""


@dataclass(frozen=True, slots=True)
class _Armed:
    action: str
    seconds: float
    only_at: int


@dataclass(slots=True)
class _State:
    armed: dict[str, _Armed]
    log_path: str
    reached: Counter[str]

    @property
    def active(self) -> bool:
        return bool(self.armed or self.log_path)


def parse(text: str) -> dict[str, _Armed]:
    """The points that a `MILLRACE_FAILPOINTS` text arms. Raises: StartRefused when it cannot be read."""
    armed = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, action = part.partition("=")
        action, _, only_at = action.partition("@")
        action, _, seconds = action.partition(":")
        try:
            point = _Armed(action, float(seconds or 0), int(only_at or 0))
        except ValueError:
            point = _Armed("", 0, 0)
        if not name or point.action not in _ACTIONS:
            raise StartRefused(f"MILLRACE_FAILPOINTS: cannot read {part!r}. Write name=crash@5 or name=sleep:2.")
        armed[name] = point
    return armed


def recorded(log_path: str) -> Counter[str]:
    """How often each point was reached so far, as the file tells."""
    try:
        with open(log_path) as lines:
            return Counter(line.split(" ", 1)[0] for line in lines)
    except FileNotFoundError:
        return Counter()


def _from_environment() -> _State:
    log_path = os.environ.get("MILLRACE_FAILPOINT_LOG", "")
    return _State(
        parse(os.environ.get("MILLRACE_FAILPOINTS", "")), log_path, recorded(log_path) if log_path else Counter()
    )


_state = _from_environment()
_active = _state.active


def hit(name: str) -> None:
    """This process is at a named point now. Sleeping and hanging hold the whole process."""
    if not _active:
        return
    point = _arrive(name)
    if point is None:
        return
    if point.action == "sleep":
        time.sleep(point.seconds)
    elif point.action == "hang":
        while True:
            time.sleep(3600)


async def reach(name: str) -> None:
    """As `hit`, from a coroutine: sleeping and hanging hold only the task."""
    if not _active:
        return
    point = _arrive(name)
    if point is None:
        return
    if point.action == "sleep":
        await asyncio.sleep(point.seconds)
    elif point.action == "hang":
        await asyncio.get_running_loop().create_future()


def _arrive(name: str) -> _Armed | None:
    """Counts and records; carries out `crash` and `error`; returns what is left to do."""
    _state.reached[name] += 1
    count = _state.reached[name]
    if _state.log_path:
        descriptor = os.open(_state.log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, f"{name} {count} {os.getpid()}\n".encode())
        finally:
            os.close(descriptor)
    point = _state.armed.get(name)
    if point is None or (point.only_at and point.only_at != count):
        return None
    if point.action == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if point.action == "error":
        raise FailpointError(f"failpoint {name} was reached for the {count}. time")
    return point


@contextmanager
def armed(text: str) -> Iterator[Counter[str]]:
    """Arms points in this process for a block and gives the count of what was reached: for tests inside one process."""
    global _state, _active
    before = _state
    _state = _State(parse(text), before.log_path, Counter())
    _active = True
    try:
        yield _state.reached
    finally:
        _state = before
        _active = before.active
