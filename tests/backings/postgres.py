"""A real PostgreSQL for tests: one embedded server a session, a fresh database a test."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from chassis.database import Database
from chassis.postgres import EmbeddedPostgres


class PostgresBacking:
    """The server of this test session. `url` is its default database; a test takes one of its own."""

    def __init__(self, folder: Path) -> None:
        self._server = EmbeddedPostgres(folder)

    @property
    def url(self) -> str:
        return self._server.url

    def start(self) -> None:
        """Start it, also again after `kill` or `stop`."""
        self._server.start()

    def stop(self) -> None:
        """Stop it cleanly: clients are cut off."""
        self._server.stop()

    def kill(self) -> None:
        """SIGKILL the server with all its processes; `start` brings it back."""
        pid = self._server.pid
        if pid is None:
            return
        children = _children(pid)  # orphans would answer for a moment longer
        os.kill(pid, signal.SIGKILL)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self._server.wait_gone()

    def url_of(self, name: str) -> str:
        return self.url.replace("@/postgres?", f"@/{name}?")

    def new_database(self) -> str:
        """Make an empty database; return its URL."""
        name = f"t_{uuid4().hex}"
        _run(self._admin(f"CREATE DATABASE {name}"))
        return self.url_of(name)

    def drop_database(self, url: str) -> None:
        """Drop a database, cutting off whoever still uses it."""
        name = url.split("@/")[1].split("?")[0]
        _run(self._admin(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))

    async def _admin(self, statement: str) -> None:
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


def _children(pid: int) -> list[int]:
    asked = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], check=False, capture_output=True, text=True)
    return [int(word) for word in asked.stdout.split()]


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine from a plain function, also when an event loop runs in this thread already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    with ThreadPoolExecutor(1) as threads:
        threads.submit(asyncio.run, work).result()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresBacking]:
    """The session's server, running."""
    folder = Path(tempfile.mkdtemp(prefix="mr-pg-"))
    backing = PostgresBacking(folder / "postgres")
    try:
        backing.start()
        yield backing
    finally:
        backing.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def database_url(postgres: PostgresBacking) -> Iterator[str]:
    """The URL of an empty database of this test's own."""
    postgres.start()  # a test before this one may have left it killed
    url = postgres.new_database()
    yield url
    postgres.start()
    postgres.drop_database(url)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """That database, opened, without a schema of its own."""
    async with Database(database_url) as opened:
        yield opened


@pytest.fixture(scope="session")
def new_database_url(postgres: PostgresBacking) -> Callable[[], str]:
    """Make one more empty database: for tests that need several, or fixtures wider than one test."""
    return postgres.new_database
