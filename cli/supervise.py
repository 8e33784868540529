"""`millrace up`: PostgreSQL and two Python processes, started together, kept alive, stopped in order.

Decides: the order of start (all at once: the processes import while PostgreSQL gets ready, then the gate opens) and of
stop (edge, which lets requests end; executor, which puts its runs down; PostgreSQL); what is checked before; the
sentences for what an operator can mend, and exit code 78 with them.
Leaves: what runs where to `up`; keeping processes alive and taking them along to chassis/supervisor.py; PostgreSQL's
life, and stopping one left over from a `kill -9`, to chassis/postgres.py.
Imports little: this process stays. Measured idle: 15 MiB.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from chassis.postgres import EmbeddedPostgres
from chassis.refusal import StartRefused
from chassis.supervisor import EXIT_REFUSED, Child, ChildLost, Patience, Supervisor
from cli.gate import GATE_VARIABLE, shut
from cli.up import PROCESSES

_PATIENCE = Patience(give_up_after=1000, back_off_s=(0.1, 1.0))
"""A database that is away for long ends no installation; after several deaths in a row work still goes on soon."""
_READY_POLL_S = 0.02
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


async def _run(place: Place, environment: Mapping[str, str]) -> int:
    _prepare_home(place.home)
    deaths: list[int] = []

    def on_death(name: str, status: int) -> None:
        deaths.append(status)
        if status != EXIT_REFUSED:  # it said why itself
            how = signal.Signals(-status).name if status < 0 else f"exit code {status}"
            print(f"millrace: the {name} process ended ({how}); it is started again.", file=sys.stderr, flush=True)

    supervisor = Supervisor(_children(place, environment), on_death=on_death, patience=_PATIENCE)
    _stop_on_signals(supervisor)
    try:
        with shut(place.home / "gate.lock") as gate:
            async with _postgres(place.home / "postgres") as starting, supervisor:  # left from the last to the first
                await starting
                await _port_is_free(place)
                gate.close()
                await supervisor.ready()
                announcing = asyncio.create_task(announce(place))
                await supervisor.wait()
                announcing.cancel()
                print("Millrace is stopping.", flush=True)
    except ChildLost as error:
        print(f"millrace: {error}", file=sys.stderr, flush=True)
        return EXIT_REFUSED if EXIT_REFUSED in deaths else 1
    return 0


def _children(place: Place, environment: Mapping[str, str]) -> list[Child]:
    common = {
        "MILLRACE_HOME": str(place.home),
        "MILLRACE_HOST": place.host,
        "MILLRACE_PORT": str(place.port),
        "MILLRACE_PUBLIC_URL": environment.get("MILLRACE_PUBLIC_URL") or place.url,
        "MILLRACE_SOLE_EXECUTOR": "true",
        GATE_VARIABLE: str(place.home / "gate.lock"),
    }
    return [Child(name, [sys.executable, "-m", "cli.up", name], common) for name in PROCESSES]


@asynccontextmanager
async def _postgres(folder: Path) -> AsyncIterator[asyncio.Task[EmbeddedPostgres]]:
    """Begins to start PostgreSQL; await what it gives for the end of that. Stops it when left."""
    postgres = EmbeddedPostgres(folder)
    starting = asyncio.create_task(postgres.__aenter__(), name="start PostgreSQL")
    try:
        yield starting
    finally:
        await asyncio.wait({starting})
        if starting.exception() is None:
            await postgres.__aexit__(None, None, None)


def _stop_on_signals(supervisor: Supervisor) -> None:
    """The first signal lets everything end in order, the second ends the processes at once."""
    asked = False

    def on_signal() -> None:
        nonlocal asked
        if asked:
            supervisor.kill()
        asked = True
        supervisor.stop()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)


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


async def _port_is_free(place: Place) -> None:
    """Raises StartRefused when the port stays taken. (The gateway takes it; asking first saves waiting for imports.)"""
    deadline = time.monotonic() + _PORT_PATIENCE_S
    while (fault := _bind_fault(place.host, place.port)) is not None:
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


async def announce(place: Place) -> None:
    """Says once that everything answers."""
    while not await _is_ready(place):  # noqa: ASYNC110  # another process gets ready: there is no event of it here
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
