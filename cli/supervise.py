"""The supervisor of embedded mode: PostgreSQL and two Python processes, started together, kept alive, stopped in order.

Decides: the order of start (all at once; the processes import while PostgreSQL gets ready, then get the word to go on)
and of stop (edge, which lets requests end; executor, which puts its runs down; PostgreSQL); when a dead process is
started again; what ends everything (a refusal to start, exit code 78); the sentences for what an operator can mend.
Leaves: what runs where to `up`; PostgreSQL's life to chassis/postgres.py.
Holds: no process outlives the supervisor: their stdin is a pipe of ours, and its end ends them, also after `kill -9`.
A PostgreSQL left over is stopped by the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from chassis.errors import StartRefused
from chassis.postgres import EmbeddedPostgres
from cli.up import PROCESSES

EXIT_REFUSED = 78
"""EX_CONFIG of sysexits.h: starting again will not help; what to do was printed."""

_PAUSES_S = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
_STEADY_S = 30.0
"""A process that lived this long begins with the shortest pause again."""
_STOP_WITHIN_S = 30.0
_READY_POLL_S = 0.05
_PORT_PATIENCE_S = 3.0
"""How long the processes of a killed supervisor may take to let go of the port."""
_MIN_FREE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Place:
    """Where this installation lives and answers."""

    home: Path
    host: str
    port: int

    @property
    def url(self) -> str:
        """Where a browser on this machine reaches it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104  # asked for, not chosen
        return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{self.port}"


def supervise() -> int:
    """Run the platform in the foreground until it is told to stop. Returns the exit code."""
    try:
        environment = _environment()
        return asyncio.run(_run(_place(environment), environment))
    except StartRefused as error:
        print(f"millrace: {error}", file=sys.stderr, flush=True)
        return EXIT_REFUSED


def _environment() -> dict[str, str]:
    """What the processes get: this environment over `.env`, as each service would read them by itself."""
    from_file = {name.upper(): value for name, value in dotenv_values(".env").items() if value}
    return {**from_file, **{name: value for name, value in os.environ.items() if value or name not in from_file}}


def _place(environment: Mapping[str, str]) -> Place:
    if environment.get("MILLRACE_DATABASE_URL"):
        raise StartRefused(
            "`millrace up` brings its own PostgreSQL, but MILLRACE_DATABASE_URL is set. Unset it, or run each service "
            "on that server with `millrace service NAME`."
        )
    written = environment.get("MILLRACE_PORT") or "8080"
    if not written.isdigit() or int(written) > 65535:
        raise StartRefused(f"MILLRACE_PORT is {written!r}. Set it to a number from 1 to 65535.")
    host = environment.get("MILLRACE_HOST") or "127.0.0.1"
    home = environment.get("MILLRACE_HOME") or str(Path.home() / ".local" / "share" / "millrace")
    port = int(written) or _free_port(host)
    return Place(Path(home).expanduser().absolute(), host, port)


async def _run(place: Place, environment: Mapping[str, str]) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stopping.set)
    _prepare_home(place.home)
    children = [Child(name, _child_environment(name, place, environment)) for name in PROCESSES]
    try:
        for child in children:
            await child.start()
        async with EmbeddedPostgres(place.home / "postgres"):
            await _port_is_free(place, stopping)
            try:
                return await _keep(place, children, stopping)
            finally:
                for child in reversed(children):
                    await child.stop(_STOP_WITHIN_S)
    finally:
        for child in children:
            await child.stop(0)


async def _keep(place: Place, children: list[Child], stopping: asyncio.Event) -> int:
    """Keeps the children alive until a signal comes or one of them refuses to start. Returns the exit code."""
    tasks = {asyncio.create_task(child.keep(), name=child.name) for child in children}
    stop = asyncio.create_task(stopping.wait(), name="stop")
    ready = asyncio.create_task(_announce(place), name="announce")
    try:
        done, _ = await asyncio.wait({stop, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in done & tasks:
            task.result()
        if stop not in done:
            return EXIT_REFUSED  # the child said why
        print("Millrace is stopping.", flush=True)
        return 0
    finally:
        for task in (*tasks, stop, ready):
            task.cancel()
        await asyncio.gather(*tasks, stop, ready, return_exceptions=True)


class Child:
    """One Python process of this installation, and whoever takes its place after it died."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; it imports what it needs and waits for `go`."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "cli.up",
            self.name,
            stdin=asyncio.subprocess.PIPE,
            env=self._environment,
            start_new_session=True,  # Ctrl-C in a terminal is for the supervisor, which stops the others in order
        )

    def go(self) -> None:
        """Let it serve: PostgreSQL is ready."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(b"go\n")

    async def keep(self) -> None:
        """Let it serve, and start it again when it dies. Returns when it refuses to start."""
        deaths = 0
        while self._process is not None:
            since = time.monotonic()
            self.go()
            code = await self._process.wait()
            if code == EXIT_REFUSED:
                return
            if time.monotonic() - since > _STEADY_S:
                deaths = 0
            pause_s = _PAUSES_S[min(deaths, len(_PAUSES_S) - 1)]
            deaths += 1
            print(
                f"millrace: the {self.name} process {_death(code)}; it is started again.", file=sys.stderr, flush=True
            )
            await asyncio.sleep(pause_s)
            await self.start()

    async def stop(self, within_s: float) -> None:
        """Ask it to drain and end, and end it hard when it takes longer. Ended already: nothing."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            if within_s:
                process.terminate()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), within_s)
                    return
                print(f"millrace: the {self.name} process did not end in time and is killed.", file=sys.stderr)
            process.kill()
        await process.wait()


def _child_environment(name: str, place: Place, environment: Mapping[str, str]) -> dict[str, str]:
    own = {
        "MILLRACE_HOME": str(place.home),
        "MILLRACE_HOST": place.host,
        "MILLRACE_PORT": str(place.port),
        "MILLRACE_PUBLIC_URL": environment.get("MILLRACE_PUBLIC_URL") or place.url,
    }
    if name == "executor":
        own["MILLRACE_SOLE_EXECUTOR"] = "true"
    return {**environment, **own}


def _death(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}"


def _prepare_home(home: Path) -> None:
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = home / f".writable.{os.getpid()}"
        probe.touch()
        probe.unlink()
        free = shutil.disk_usage(home).free
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = 0
        else:
            raise StartRefused(
                f"The home folder {home} cannot be used: {error.strerror}. Make it writable, or set MILLRACE_HOME to "
                "another folder."
            ) from None
    if free < _MIN_FREE_BYTES:
        raise StartRefused(
            f"The disk of {home} is full ({free // 2**20} MiB left). Free some space (64 MiB at least) and start "
            "again; nothing is lost."
        )


async def _port_is_free(place: Place, stopping: asyncio.Event) -> None:
    """Raises StartRefused when the port stays taken. (The gateway takes it; asking first saves waiting for imports.)"""
    deadline = time.monotonic() + _PORT_PATIENCE_S
    while (fault := _bind_fault(place.host, place.port)) is not None and not stopping.is_set():
        if fault.errno != errno.EADDRINUSE:
            raise StartRefused(
                f"Millrace cannot answer on {place.host} port {place.port}: {fault.strerror}. Set MILLRACE_HOST and "
                "MILLRACE_PORT."
            )
        if time.monotonic() > deadline:
            raise StartRefused(
                f"Port {place.port} is taken by another program. Stop it, or set MILLRACE_PORT to another one."
            )
        await asyncio.sleep(0.1)


def _bind_fault(host: str, port: int) -> OSError | None:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return error
    return None


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as asked:
        asked.bind((host, 0))
        return int(asked.getsockname()[1])


async def _announce(place: Place) -> None:
    """Says once that everything answers."""
    while not await _is_ready(place):
        await asyncio.sleep(_READY_POLL_S)
    print(f"Millrace is ready: {place.url}", flush=True)


async def _is_ready(place: Place) -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(place.host, place.host)  # noqa: S104  # asked for, not chosen
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(host, place.port)
            try:
                writer.write(b"GET /readyz HTTP/1.1\r\nhost: millrace\r\nconnection: close\r\n\r\n")
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
