"""A small parent of a few child processes: starts them, starts again those that die, ends them in order.

Decides: when a child is ready (a line on its pipe, or its address answers), how long to wait before the next start,
when to give up, that children never outlive this process (PR_SET_PDEATHSIG, and their whole group is killed with them).
Leaves: which children there are to the CLI; a child's own orderly end to its `lifecycle`.
Holds: imports nothing of the chassis: the supervisor stays below 25 MB and starts in no time.

    async with Supervisor([Child("edge", argv), Child("executor", argv)], on_death=told) as supervisor:
        await supervisor.ready()
        await supervisor.wait()      # returns after stop(), raises ChildLost when it gave up
"""

import asyncio
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

READY_FD_VARIABLE = "MILLRACE_READY_FD"
"""Environment variable with the number of the descriptor that a child writes its line to. `lifecycle` does so."""
EXIT_REFUSED = 78
"""EX_CONFIG of sysexits.h: a child that ends so cannot start as it is configured; starting it again would not help."""
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Child:
    """One child process. `env` comes on top of this process's environment.

    `ready`: `line`, it writes a line to the descriptor in `MILLRACE_READY_FD`; `address`, something accepts connections
    on `address` (`unix:/path` or `host:port`); `started`, as soon as it runs.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    ready: Literal["line", "address", "started"] = "line"
    address: str = ""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the supervisor waits, in seconds, and how often it tries."""

    ready_s: float = 60.0
    stop_s: float = 30.0
    """From TERM to KILL, for each child."""
    back_off_s: tuple[float, float] = (0.1, 5.0)
    """Before the second start in a row; doubled each time, up to the second number. The first restart is at once."""
    steady_s: float = 10.0
    """A child that lived this long starts its back-off anew."""
    give_up_after: int = 6
    """Starts in a row that never became ready."""


class ChildLost(Exception):  # noqa: N818  # named by what happened, as all errors of the house
    """A child cannot be kept running; the message says which and why."""


class Supervisor:
    """Keeps children running while entered. Leaving it ends them in the given order."""

    def __init__(
        self,
        children: Sequence[Child],
        *,
        on_death: Callable[[str, int], None] | None = None,
        patience: Patience | None = None,
    ) -> None:
        """`on_death` is told the name and exit status (negative: the signal) of each child that died unasked."""
        self._children = children
        self._on_death = on_death
        self._patience = patience or Patience()
        self._stopping = asyncio.Event()
        self._ready = {child.name: asyncio.Event() for child in children}
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._failure: ChildLost | None = None

    async def __aenter__(self) -> Self:
        self._keepers = [asyncio.create_task(self._keep(child), name=f"keep {child.name}") for child in self._children]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        self._stopping.set()
        for child in self._children:
            await self._end(child.name)
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for name in self._processes:  # what was started between the two
            self._kill(name)

    async def ready(self) -> None:
        """Returns when every child has become ready once, or when asked to stop. Raises: ChildLost."""
        all_ready = asyncio.create_task(self._all_ready())
        stopping = asyncio.create_task(_set(self._stopping))
        await asyncio.wait({all_ready, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for waiting in (all_ready, stopping):
            waiting.cancel()
        if self._failure is not None:
            raise self._failure

    async def _all_ready(self) -> None:
        for event in self._ready.values():
            await event.wait()

    async def wait(self) -> None:
        """Returns after `stop`. Raises: ChildLost when a child could not be kept running."""
        await self._stopping.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Makes `wait` return; leaving the supervisor ends the children."""
        self._stopping.set()

    def kill(self) -> None:
        """Kills all children now: for a second signal."""
        self._stopping.set()
        for name in self._processes:
            self._kill(name)

    def pid(self, name: str) -> int | None:
        """The process id of a child that runs."""
        process = self._processes.get(name)
        return process.pid if process is not None and process.returncode is None else None

    async def _keep(self, child: Child) -> None:
        pause_s, failed_starts = 0.0, 0
        while not self._stopping.is_set():
            began = time.monotonic()
            became_ready, status = await self._live(child)
            if self._stopping.is_set():
                return
            if self._on_death is not None:
                self._on_death(child.name, status)
            failed_starts = 0 if became_ready else failed_starts + 1
            if status == EXIT_REFUSED or failed_starts >= self._patience.give_up_after:
                self._failure = ChildLost(_why_lost(child.name, status, failed_starts))
                self._stopping.set()
                return
            if time.monotonic() - began >= self._patience.steady_s:
                pause_s = 0.0
            await asyncio.sleep(pause_s)
            first, most = self._patience.back_off_s
            pause_s = min(max(pause_s * 2, first), most)

    async def _live(self, child: Child) -> tuple[bool, int]:
        """One life of a child: whether it became ready, and its exit status."""
        readable, writable = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *child.argv,
                env={**os.environ, **child.env, READY_FD_VARIABLE: str(writable)},
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(writable,),
                start_new_session=True,  # Ctrl-C reaches the supervisor alone, which ends children in order
                preexec_fn=_dies_with(os.getpid()),
            )
        except OSError as error:
            os.close(readable)
            print(f"millrace: {child.name} cannot be started: {error.strerror} ({child.argv[0]})", file=sys.stderr)
            return False, EXIT_REFUSED
        finally:
            os.close(writable)
        self._processes[child.name] = process
        if self._stopping.is_set():
            self._kill(child.name)  # asked to stop while it was starting
        watching = asyncio.create_task(self._watch(child, process, readable))
        status = await process.wait()
        self._kill(child.name)  # what it left behind in its group
        watching.cancel()
        with suppress(asyncio.CancelledError):
            return await watching, status
        return False, status

    async def _watch(self, child: Child, process: asyncio.subprocess.Process, readable: int) -> bool:
        """Whether the child became ready; kills one that does not in time."""
        try:
            async with asyncio.timeout(self._patience.ready_s):
                if child.ready == "line" and not await _line_from(readable):
                    return False
                while child.ready == "address" and not await _answers(child.address):  # noqa: ASYNC110  # of another process
                    await asyncio.sleep(0.02)
        except TimeoutError:
            print(f"millrace: {child.name} was not ready in {self._patience.ready_s:g} s, killing it", file=sys.stderr)
            process.kill()
            return False
        finally:
            os.close(readable)
        self._ready[child.name].set()
        return True

    async def _end(self, name: str) -> None:
        process = self._processes.get(name)
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(self._patience.stop_s):
                await process.wait()
        except TimeoutError:
            print(f"millrace: {name} did not end in {self._patience.stop_s:g} s, killing it", file=sys.stderr)
            self._kill(name)
            await process.wait()

    def _kill(self, name: str) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._processes[name].pid, signal.SIGKILL)


def _dies_with(parent: int) -> Callable[[], None]:
    """Runs in the child before its program: the kernel kills it when this process dies, however it dies."""

    def arrange() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # it died before the line above

    return arrange


async def _line_from(descriptor: int) -> bool:
    """Waits for a byte on a pipe; False when its other end was closed without one."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()

    def arrived() -> None:
        if not readable.done():
            readable.set_result(None)

    loop.add_reader(descriptor, arrived)
    try:
        await readable
    finally:
        loop.remove_reader(descriptor)
    return bool(os.read(descriptor, 64))


async def _set(event: asyncio.Event) -> None:
    await event.wait()


async def _answers(address: str) -> bool:
    try:
        if address.startswith("unix:"):
            _, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    return True


def _why_lost(name: str, status: int, failed_starts: int) -> str:
    if status == EXIT_REFUSED:
        return f"{name} cannot start as it is configured; its last line above says why."
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
    return f"{name} ended with {how} at {failed_starts} starts in a row, never ready. Its log above says why."


def tell_ready() -> None:
    """Called by a child that is ready: writes the line its supervisor waits for, if it has one."""
    descriptor = os.environ.pop(READY_FD_VARIABLE, "")
    if not descriptor.isdigit():
        return
    with suppress(OSError):  # the supervisor is gone, or the number was meant for a parent of this process
        os.write(int(descriptor), b"ready\n")
        os.close(int(descriptor))
