"""One real installation: `millrace up` as a person starts it, with pieces of it killed from outside.

Decides: how each piece is found and killed; that what is durable can be looked at between a death and the next start
(the supervisor is held while somebody looks).
Leaves: load to traffic.py, what must hold to judge.py.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import asyncpg
import httpx

from chassis.postgres import EmbeddedPostgres
from tests.chaos.processes import PATIENCE_S, alive, arguments, children, descendants, gone, send, until

ROOT = Path(__file__).resolve().parents[2]


class Installation:
    """An embedded installation in `home`. Its data, port and home stay over any death and start."""

    def __init__(self, home: Path, egress: str, env: Mapping[str, str] | None = None) -> None:
        """`egress`: the local address that flows may call. `env`: more settings, for every process."""
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_file = home.with_suffix(".log")
        self.database = EmbeddedPostgres(home / "postgres")
        self._env = {
            "MILLRACE_HOME": str(home),
            "MILLRACE_PORT": str(self.port),
            "MILLRACE_EGRESS_ALLOW": f'["{egress}"]',
            **(env or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    # -- life --

    def start(self, env: Mapping[str, str] | None = None) -> None:
        """Start it. `env`: settings of this start alone."""
        program = Path(sys.executable).with_name("millrace")
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [str(program), "up"],
                cwd=ROOT,
                env={**os.environ, **self._env, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def ready(self) -> None:
        """Returns when everything answers."""
        async with httpx.AsyncClient(base_url=self.url, timeout=5) as client:
            deadline = asyncio.get_running_loop().time() + PATIENCE_S
            while True:
                with suppress(httpx.TransportError):
                    if (await client.get("/readyz")).status_code == 200:
                        return
                if self._process is None or self._process.poll() is not None:
                    raise AssertionError(f"millrace up ended: {self.said()}")
                if asyncio.get_running_loop().time() > deadline:
                    raise AssertionError(f"The installation does not get ready: {self.said()}")
                await asyncio.sleep(0.05)

    async def stop(self) -> int:
        """SIGTERM; its exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        process = self._process
        await until("millrace up ended after SIGTERM", lambda: process.poll() is not None)
        return process.returncode

    async def end(self) -> None:
        """Leave nothing behind, whatever state it is in."""
        if self._process is not None and self._process.poll() is None:
            await self._kill_everything()

    def said(self) -> str:
        """The end of its log."""
        return self.log_file.read_text(errors="replace")[-3000:] if self.log_file.exists() else ""

    # -- its processes --

    @property
    def supervisor(self) -> int:
        """Process id of `millrace up`."""
        assert self._process is not None
        return self._process.pid

    def pid(self, piece: str) -> int | None:
        """Process id of `executor`, `edge` or `postgres` while it runs."""
        if piece == "postgres":
            return self._postgres_pid()
        for child in children(self.supervisor):
            if arguments(child)[-2:] == ["cli.up", piece] and alive(child):
                return child
        return None

    def jails(self) -> list[int]:
        """Process ids of what runs below the executor."""
        executor = self.pid("executor")
        return descendants(executor) if executor is not None else []

    def _postgres_pid(self) -> int | None:
        with suppress(OSError, ValueError, IndexError):
            pid = int((self.home / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])
            if alive(pid) and arguments(pid)[1:3] == ["-D", str(self.home / "postgres" / "data")]:
                return pid
        return None

    # -- deaths --

    @asynccontextmanager
    async def killed(self, piece: str) -> AsyncIterator[None]:
        """SIGKILL a piece. In the block it is dead and, where that can be, not started again yet; after it, it is.

        `executor`, `edge`, `postgres`, `supervisor` (its children must die with it) or `everything`.
        """
        match piece:
            case "executor" | "edge":
                async with self._killed_child(piece):
                    yield
            case "postgres":
                await self._kill_postgres()
                yield  # the supervisor brings it back by itself, while somebody looks
            case "supervisor" | "everything":
                pids = descendants(self.supervisor)
                if piece == "everything":
                    await self._kill_everything()
                else:
                    await self._kill_supervisor(pids)
                with self.only_database():
                    yield
                self.start()
            case _:
                raise ValueError(piece)

    @asynccontextmanager
    async def _killed_child(self, name: str) -> AsyncIterator[None]:
        await until(f"{name} runs", lambda: self.pid(name) is not None)
        send([self.supervisor], signal.SIGSTOP)
        try:
            pid = self.pid(name)  # it cannot change any more
            if pid is not None:
                below = descendants(pid)
                send([pid], signal.SIGKILL)
                await gone([pid])
                await self._statements_ended()
                yield
                send([self.supervisor], signal.SIGCONT)
                await gone(below)
        finally:
            send([self.supervisor], signal.SIGCONT)

    async def _kill_postgres(self) -> None:
        pid = self.pid("postgres")
        if pid is not None:
            doomed = [pid, *descendants(pid)]
            send(doomed, signal.SIGKILL)
            await gone(doomed)

    async def _kill_supervisor(self, below: list[int]) -> None:
        send([self.supervisor], signal.SIGKILL)
        assert self._process is not None
        self._process.wait()
        pythons = [pid for pid in below if "cli.up" in arguments(pid)]
        await gone(pythons)

    async def _kill_everything(self) -> None:
        assert self._process is not None
        send([self.supervisor], signal.SIGSTOP)  # it starts nobody again, and nobody escapes
        postgres = self.pid("postgres")
        doomed = descendants(self.supervisor)
        doomed += [postgres, *descendants(postgres)] if postgres is not None else []
        send([self.supervisor, *doomed], signal.SIGKILL)
        self._process.wait()
        await gone(doomed)

    @contextmanager
    def only_database(self) -> Iterator[None]:
        """The database alone, while nothing else of the installation runs."""
        self.database.start()
        try:
            yield
        finally:
            self.database.stop()

    # -- the database --

    async def connect(self) -> asyncpg.Connection[asyncpg.Record]:
        """A connection to the database, whichever server serves it now."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            try:
                return await asyncpg.connect(self.database.url, timeout=5)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.05)

    async def _statements_ended(self) -> None:
        """What a dead client had sent is still carried out; returns when that is over."""
        connection = await self.connect()
        try:
            while await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()"
                " AND backend_type = 'client backend' AND (query LIKE '%flush_v1%' OR query = 'COMMIT;')"
            ):
                await asyncio.sleep(0.01)
        finally:
            await connection.close()


@asynccontextmanager
async def installation(egress: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Installation]:
    """A fresh one, started and ready; nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="mr-chaos-") as folder:
        running = Installation(Path(folder) / secrets.token_hex(3), egress, env)
        running.start()
        try:
            await running.ready()
            yield running
        finally:
            await running.end()
            if "MILLRACE_CHAOS_KEEP" in os.environ:
                Path(os.environ["MILLRACE_CHAOS_KEEP"]).write_bytes(running.log_file.read_bytes())


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])
