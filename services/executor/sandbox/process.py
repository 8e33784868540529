"""One jail seen from the executor: a process, two pipes and a shared page.

Decides: how a jail is started, what it inherits (nothing), how requests are gathered into one write, how its death is
noticed.
Leaves: whom it serves and what its death means to pool.py.
"""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import msgspec

from services.executor.sandbox import wire
from services.executor.sandbox.calls import Call, CodeUnit, ExpressionKey, learning
from services.executor.sandbox.settings import SandboxSettings

_BOOT = "import sys; sys.path[:0] = sys.argv[1:]; from services.executor.sandbox.jail import main; main()"
_READ_BYTES = 1 << 18
_PIPE_BYTES = 1 << 20
_CPU_AHEAD_S = 60
_MEMORY_SIGNALS = frozenset(
    -number for number in (signal.SIGTRAP, signal.SIGABRT, signal.SIGSEGV, signal.SIGILL, signal.SIGBUS, signal.SIGKILL)
)


@dataclass(frozen=True)
class JailGround:
    """What all jails of a sandbox have in common."""

    settings: SandboxSettings
    filter: bytes
    icu_folder: str
    icu_file: str
    boot: str = _BOOT


class Jail:
    """A jail process. `on_rest(jail)`: ready, or all calls answered. `on_end(jail)`: the process is gone."""

    def __init__(
        self, ground: JailGround, uid: int, on_rest: Callable[[Jail], None], on_end: Callable[[Jail], None]
    ) -> None:
        self.uid = uid
        self.project_id: str | None = None
        self.walls: tuple[str, ...] | None = None
        self.refusal: str | None = None
        self.pending: dict[int, Call] = {}
        self.served = 0
        self.versions: set[str] = set()
        self.retiring = False
        self.slow = False
        self.used_at = 0.0
        self.watched = 0
        self.watched_since = 0.0
        self._gone = asyncio.Event()
        self._on_rest = on_rest
        self._on_end = on_end
        self._known: dict[CodeUnit | ExpressionKey, int] = {}
        self._next_number = 0
        self._next_known = 0
        self._out: list[bytes] = []
        self._flush_due = False
        self._unwritten = memoryview(b"")
        self._unread = b""
        self._open = True
        self._cpu_renewed = 0.0
        self._loop = asyncio.get_running_loop()
        self._start(ground)

    def _start(self, ground: JailGround) -> None:
        requests_end, self._requests = os.pipe2(os.O_CLOEXEC)
        self._answers, answers_end = os.pipe2(os.O_CLOEXEC)
        page = os.memfd_create("jail", os.MFD_CLOEXEC)
        os.ftruncate(page, wire.PAGE_BYTES)
        self._map = mmap.mmap(page, wire.PAGE_BYTES)
        self.page = memoryview(self._map).cast("Q")
        try:
            # From the thread of the event loop: the kernel kills a jail when the very thread that started it ends.
            self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and modules
                [sys.executable, "-I", "-S", "-c", ground.boot, *import_paths()],
                stdin=requests_end, stdout=answers_end, stderr=subprocess.DEVNULL,
                env={"HOME": "/nonexistent", "ICU_DATA": ground.icu_folder, "TZ": "UTC"},
                cwd="/", pass_fds=(page,),
            )  # fmt: skip
        finally:
            os.close(requests_end)
            os.close(answers_end)
            os.close(page)
        self.pid = self.process.pid
        for descriptor in (self._requests, self._answers):
            os.set_blocking(descriptor, False)
            _widen(descriptor)
        self._out.append(wire.frame(0, wire.SETUP, jail_setup(ground, self.uid, page)))
        self._flush()
        self._loop.add_reader(self._answers, self._readable)
        self._exited = os.pidfd_open(self.pid)
        self._loop.add_reader(self._exited, self._ended)
        self._deadline = self._loop.call_later(ground.settings.start_timeout_ms / 1000, self.kill)

    @property
    def ready(self) -> bool:
        """Whether its walls stand and it takes calls."""
        return self.walls is not None and self._open

    @property
    def load(self) -> int:
        """How little one wants to stand in line here."""
        return len(self.pending) + (1_000_000 if self.slow else 0)

    def send(self, call: Call) -> None:
        """Puts a call behind those it has. What is sent in one turn of the event loop goes in one write."""
        body = call.body
        key = call.key
        if key is not None:
            known = self._known.get(key)
            if known is None:
                known = self._learn(key)
            body = wire.NUMBER.pack(known) + body
            if call.sort == wire.EVALUATE:
                body = wire.NUMBER.pack(wire.NUMBER.size) + body
        self._next_number += 1
        number = self._next_number
        self.pending[number] = call
        out = self._out
        out.append(wire.HEADER.pack(len(body), number, call.sort))
        out.append(body)
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def take_waiting(self) -> list[Call]:
        """Takes all calls but the one that runs, and tells the jail not to begin them."""
        running = self.running()
        taken = [number for number in self.pending if number > running]
        if taken:
            self.page[wire.SKIP_AFTER] = running  # first, so the jail never sees a range that holds the running call
            self.page[wire.SKIP_UP_TO] = taken[-1]
        return [self.pending.pop(number) for number in taken]

    def running(self) -> int:
        """The number of the call that runs. The jail's word counts only for a call that is pending."""
        number = self.page[wire.RUNNING]
        return number if number in self.pending else next(iter(self.pending), 0)

    def renew_cpu_limit(self, now: float) -> None:
        """Keeps the kernel's own limit a minute ahead of what was used, should the executor's event loop ever stand
        still."""
        if now - self._cpu_renewed < 1:
            return
        self._cpu_renewed = now
        try:
            limit = int(time.clock_gettime((~self.pid << 3) | 2)) + _CPU_AHEAD_S
            resource.prlimit(self.pid, resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        except (OSError, ValueError):
            return  # it just ended, or this user may not raise limits of others; the watch from outside remains

    def kill(self) -> None:
        """Ends the process now. `on_end` follows when the kernel has reaped it."""
        if self.process.returncode is None:
            self.process.kill()
        self._close()

    async def wait(self) -> None:
        """Until the process is gone."""
        await self._gone.wait()

    @property
    def died_of_memory(self) -> bool:
        """Whether it ended as V8 and Python end without memory.

        SIGKILL that was not ours is the kernel's out-of-memory killer.
        """
        code = self.process.returncode
        return code in _MEMORY_SIGNALS or code == wire.EXIT_MEMORY

    def _learn(self, key: CodeUnit | ExpressionKey) -> int:
        self._next_known += 1
        self._known[key] = self._next_known
        self.versions.add(key.version_id)
        self._out.append(learning(self._next_known, key))
        return self._next_known

    def _flush(self) -> None:
        self._flush_due = False
        if self._open and self._out and not self._unwritten:
            data = b"".join(self._out)
            self._out.clear()
            self._write(memoryview(data))

    def _write(self, data: memoryview) -> None:
        try:
            written = os.write(self._requests, data)
        except BlockingIOError:
            written = 0
        except BrokenPipeError:
            return  # it died; `_ended` deals with its calls
        waits = bool(self._unwritten)
        self._unwritten = data[written:]
        if self._unwritten and not waits:
            self._loop.add_writer(self._requests, self._writable)
        elif waits and not self._unwritten:
            self._loop.remove_writer(self._requests)

    def _writable(self) -> None:
        self._write(self._unwritten)
        self._flush()

    def _readable(self) -> None:
        try:
            read = os.read(self._answers, _READ_BYTES)
        except BlockingIOError:
            return
        if not read:
            self._loop.remove_reader(self._answers)
            return
        self._take(self._unread + read if self._unread else read)

    def _take(self, data: bytes) -> None:
        at, end, header, pending = 0, len(data), wire.HEADER, self.pending
        while end - at >= header.size:
            length, number, sort = header.unpack_from(data, at)
            start = at + header.size
            at_end = start + length
            if at_end > end:
                break
            if number:
                call = pending.pop(number, None)
                if call is not None:
                    self.served += 1
                    call.settle(sort, data[start:at_end])
            else:
                self._greeted(sort, data[start:at_end])
            at = at_end
        self._unread = data[at:] if at < end else b""
        if not pending:
            self._on_rest(self)

    def _greeted(self, sort: int, body: bytes) -> None:
        if sort == wire.READY and self.walls is None:
            self._deadline.cancel()
            self.walls = msgspec.json.decode(body, type=tuple[str, ...])
        elif sort == wire.REFUSED:
            self.refusal = body.decode("utf-8", "replace")

    def _ended(self) -> None:
        if self.process.poll() is None:
            return
        if self._open:
            self._drain()
        self._close()
        if self._exited >= 0:
            self._loop.remove_reader(self._exited)
            os.close(self._exited)
            self._exited = -1
            self._gone.set()
            self._on_end(self)

    def _drain(self) -> None:
        """Answers that were given before death count."""
        try:
            while read := os.read(self._answers, _READ_BYTES):
                self._take(self._unread + read)
        except BlockingIOError:
            return

    def _close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._deadline.cancel()
        self._loop.remove_reader(self._answers)
        self._loop.remove_writer(self._requests)
        os.close(self._answers)
        os.close(self._requests)


def import_paths() -> list[str]:
    """Where the jail's few modules lie; its interpreter starts without site-packages."""
    paths = [str(Path(__file__).resolve().parents[3])]
    for name in ("_STPyV8", "tree_sitter", "tree_sitter_javascript", "tree_sitter_typescript"):
        spec = find_spec(name)
        if spec is not None and spec.origin is not None:
            folder = Path(spec.origin).parent
            path = str(folder if name.startswith("_") else folder.parent)
            if path not in paths:
                paths.append(path)
    return paths


def jail_setup(ground: JailGround, uid: int, page: int) -> bytes:
    """What a jail is told before it raises its walls."""
    settings = ground.settings
    return msgspec.json.encode(
        {
            "parent": os.getpid(),
            "page_fd": page,
            "uid": uid,
            "icu_file": ground.icu_file,
            "heap_mib": settings.heap_mib,
            "memory_bytes": settings.memory_mib << 20,
            "cpu_s": _CPU_AHEAD_S,
            "limits": (settings.max_output_bytes, settings.max_console_lines, settings.max_console_bytes),
            "filter": ground.filter.hex(),
            "allow_without_walls": settings.allow_without_walls,
        }
    )


def _widen(descriptor: int) -> None:
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError:
        return  # the user's share of pipe memory is used up; the pipe stays at 64 KiB
