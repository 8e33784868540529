"""A real installation, embedded or as a cluster, of which pieces are killed from outside.

Decides: how each piece is found and killed; that what is durable can be looked at between a death and the next start
(the supervisor is held while somebody looks).
Leaves: starting and stopping to tests/backings/platform.py, load to traffic.py, what must hold to judge.py.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import asyncpg

from chassis.postgres import EmbeddedPostgres
from tests.backings.platform import Platform, made_platform
from tests.chaos.processes import PATIENCE_S, alive, arguments, children, descendants, gone, send, until


class Installation:
    """A platform that dies and comes back; its data and port stay."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.url = platform.url
        self.database = EmbeddedPostgres(platform.home / "postgres")
        self._process: subprocess.Popen[str] | None = None

    # -- life --

    def launch(self) -> None:
        """Start it without waiting."""
        self._process = self.platform.launch()

    async def ready(self) -> None:
        """Returns when everything answers."""
        await asyncio.to_thread(self.platform.wait_ready)

    async def stop(self) -> int:
        """SIGTERM; its exit code, once it has drained."""
        return await asyncio.to_thread(self.platform.stop)

    async def end(self) -> None:
        """Leave nothing behind, whatever state it is in."""
        if self._process is not None and self._process.poll() is None:
            await self._kill_everything()

    def said(self) -> str:
        """The end of its log."""
        return self.platform.output[-4000:]

    # -- its processes --

    @property
    def supervisor(self) -> int:
        """Process id of the parent of all."""
        assert self._process is not None
        return self._process.pid

    def pid(self, piece: str) -> int | None:
        """Process id of `postgres`, `executor`, `edge`, or a service of a cluster, while it runs."""
        if piece == "postgres":
            return self._postgres_pid()
        names = (["cli.up", piece], ["-m", f"services.{piece}"], ["-m", piece])
        for child in children(self.supervisor):
            if arguments(child)[-2:] in names and alive(child):
                return child
        return None

    def _postgres_pid(self) -> int | None:
        with suppress(OSError, ValueError, IndexError):
            data = self.platform.home / "postgres" / "data"
            pid = int((data / "postmaster.pid").read_text().splitlines()[0])
            if alive(pid) and arguments(pid)[1:3] == ["-D", str(data)]:
                return pid
        return None

    # -- deaths --

    @asynccontextmanager
    async def killed(self, piece: str) -> AsyncIterator[None]:
        """SIGKILL a piece. In the block it is dead and, where that can be, not started again yet; after it, it is.

        A process by its name, `postgres`, `supervisor` (its children must die with it) or `everything`.
        """
        match piece:
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
                self.launch()
            case _:
                async with self._killed_child(piece):
                    yield

    @asynccontextmanager
    async def _killed_child(self, name: str) -> AsyncIterator[None]:
        await until(f"{name} runs", lambda: self.pid(name) is not None)
        send([self.supervisor], signal.SIGSTOP)
        try:
            pid = self.pid(name)  # it cannot change any more
            doomed = [pid, *descendants(pid)] if pid is not None else []
            send(doomed[:1], signal.SIGKILL)  # what is below must not outlive it
            await gone(doomed)
            await self._statements_ended()
            yield
        finally:
            send([self.supervisor], signal.SIGCONT)

    @asynccontextmanager
    async def database_away(self) -> AsyncIterator[None]:
        """In the block PostgreSQL is gone, and nobody brings it back."""
        send([self.supervisor], signal.SIGSTOP)
        try:
            await self._kill_postgres()
            yield
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
        await gone([pid for pid in below if "cli.up" in arguments(pid)])

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
async def installation(egress: str, kind: type[Platform] = Platform, **settings: str) -> AsyncIterator[Installation]:
    """A fresh one, ready; nothing of it is left afterwards. `egress`: the local address that flows may call."""
    with made_platform(kind) as platform:
        platform.settings |= {"MILLRACE_EGRESS_ALLOW": f'["{egress}"]', **settings}
        running = Installation(platform)
        running.launch()
        try:
            await running.ready()
            yield running
        finally:
            await running.end()
