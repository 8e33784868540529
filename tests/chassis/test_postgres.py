"""The embedded PostgreSQL comes back from every way to die, and says in one sentence why it cannot start."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from chassis.errors import StartRefused
from chassis.postgres import EmbeddedPostgres

_OWNER = """
import pathlib, sys, time
from chassis.postgres import EmbeddedPostgres
server = EmbeddedPostgres(pathlib.Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """A folder with an initialised server, stopped: made once, copied by each test."""
    folder = Path(tempfile.mkdtemp(prefix="mr-pgt-"))
    server = EmbeddedPostgres(folder / "p")
    server.start()
    server.stop()
    yield folder / "p"
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def folder(template: Path) -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="mr-pgt-"))
    subprocess.run(["cp", "-a", str(template), str(home / "p")], check=True)
    yield home / "p"
    shutil.rmtree(home, ignore_errors=True)


async def _remember(url: str, value: int) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (value int)")
    await connection.execute("INSERT INTO kept VALUES ($1)", value)
    await connection.close()


async def _kept(url: str) -> list[int]:
    connection = await asyncpg.connect(url)
    try:
        return [row["value"] for row in await connection.fetch("SELECT value FROM kept ORDER BY value")]
    finally:
        await connection.close()


async def test_what_was_committed_survives_a_stop_and_a_new_start(folder: Path) -> None:
    async with EmbeddedPostgres(folder) as server:
        await _remember(server.url, 1)
    async with EmbeddedPostgres(folder) as server:
        assert await _kept(server.url) == [1]


async def test_a_killed_server_is_started_again_with_all_that_was_committed(folder: Path) -> None:
    async with EmbeddedPostgres(folder) as server:
        await _remember(server.url, 1)
        killed = server.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        async with asyncio.timeout(30):
            while server.pid in {None, killed} or not await _answers(server.url):
                await asyncio.sleep(0.02)
        assert await _kept(server.url) == [1]


async def test_the_server_of_a_killed_owner_is_stopped_and_replaced(folder: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _OWNER, str(folder)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        orphan = int(owner.stdout.readline())
        owner.kill()
    server = EmbeddedPostgres(folder)
    connection = await asyncpg.connect(server.url)  # a client of the former life
    await _remember(server.url, 1)
    async with server:
        assert server.pid != orphan
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await connection.fetchval("SELECT 1")
        assert await _kept(server.url) == [1]


async def test_a_process_id_left_behind_and_used_by_another_process_does_not_matter(folder: Path) -> None:
    async with EmbeddedPostgres(folder) as server:
        await _remember(server.url, 1)
    pid_file = folder / "data" / "postmaster.pid"
    pid_file.write_text(f"{os.getppid()}\n{folder / 'data'}\n1\n5432\n{folder / 'run'}\n\n\nready\n")
    owner = (folder / "data").stat()
    os.chown(pid_file, owner.st_uid, owner.st_gid)
    async with EmbeddedPostgres(folder) as server:
        assert await _kept(server.url) == [1]


def test_a_second_owner_of_a_folder_is_refused(folder: Path) -> None:
    first = EmbeddedPostgres(folder)
    first.start()
    try:
        with pytest.raises(StartRefused, match=rf"in use by another Millrace \(process {os.getpid()}\)"):
            EmbeddedPostgres(folder).start()
    finally:
        first.stop()


@pytest.fixture
def foreign() -> Iterator[Path]:
    """A folder that looks like one of another PostgreSQL."""
    home = Path(tempfile.mkdtemp(prefix="mr-pgt-"))
    (home / "p" / "data").mkdir(parents=True)
    yield home / "p"
    shutil.rmtree(home)


def test_a_folder_of_a_newer_major_version_is_refused_untouched(foreign: Path) -> None:
    (foreign / "data" / "PG_VERSION").write_text("19\n")
    with pytest.raises(StartRefused, match=r"was made by PostgreSQL 19, this Millrace brings 18.*newer Millrace"):
        EmbeddedPostgres(foreign).start()


def test_a_folder_of_an_older_major_version_names_the_way_over_a_backup(foreign: Path) -> None:
    (foreign / "data" / "PG_VERSION").write_text("16\n")
    with pytest.raises(StartRefused, match=r"made by PostgreSQL 16.*Back it up"):
        EmbeddedPostgres(foreign).start()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartRefused, match="cannot be used: Not a directory"):
        EmbeddedPostgres(tmp_path / "file" / "postgres").start()


@pytest.mark.skipif(os.geteuid() != 0, reason="a full disk is made with a small file system, which takes root")
def test_a_full_disk_is_said() -> None:
    place = Path(tempfile.mkdtemp(prefix="mr-full-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)], check=True)
    try:
        with pytest.raises(StartRefused, match=f"The disk of {place}.* is full"):
            EmbeddedPostgres(place / "p").start()
    finally:
        subprocess.run(["umount", str(place)], check=True)
        place.rmdir()


async def test_a_path_too_long_for_a_socket_works_as_well(folder: Path) -> None:
    long = folder.parent / ("x" * 100) / "p"
    long.parent.mkdir()
    folder.rename(long)
    server = EmbeddedPostgres(long)
    async with server:
        await _remember(server.url, 1)
        assert await _kept(server.url) == [1]
    shutil.rmtree(server.socket_folder)


async def _answers(url: str) -> bool:
    try:
        await (await asyncpg.connect(url)).close()
    except (OSError, asyncpg.PostgresError):
        return False
    return True
