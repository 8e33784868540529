"""`millrace backup` and `millrace restore`: a whole installation in one file.

Decides: the file is a tar of a database dump (one snapshot, so every journal fits its run and every position its log)
and of what else lies in the home folder: keys and files. The dump comes first: files are never changed, so all that it
names are there. It holds the keys: only its owner may read it.
A restore fills an empty home, whole or not at all: it is made beside its place and moved there.
Leaves: the dump's form to PostgreSQL's own programs, which come with the installation.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from chassis.errors import StartRefused, Unavailable
from chassis.postgres import MAJOR, EmbeddedPostgres, binaries
from chassis.settings import ServiceSettings
from cli.database import refuse, running_database
from cli.printing import tell

_FORMAT = 1
_MANIFEST, _DUMP, _HOME = "millrace-backup.json", "database.dump", "home"
_NOT_KEPT = frozenset({"postgres", "run", "gate.lock"})
"""What of the home folder is no part of a backup: the database lies in the dump, the rest is made at each start."""


def backup(file: Path) -> None:
    """Write the installation into a file. It may run meanwhile."""
    try:
        settings = ServiceSettings()
        asyncio.run(_backup(settings, file.absolute()))
    except (StartRefused, Unavailable) as error:
        refuse(error)
    except OSError as error:
        refuse(StartRefused(f"{file} cannot be written: {error.strerror}."))
    tell(f"Wrote {file} ({file.stat().st_size / 2**20:.1f} MiB). It holds the installation's keys: keep it safe.")


def restore(file: Path) -> None:
    """Make the installation of a backup file in a home folder where nothing is yet."""
    try:
        settings = ServiceSettings()
        asyncio.run(_restore(settings, file.absolute()))
    except (StartRefused, Unavailable) as error:
        refuse(error)
    except (tarfile.TarError, KeyError, ValueError):
        refuse(StartRefused(f"{file} is no backup of Millrace, or is damaged. Nothing was changed."))
    except OSError as error:
        refuse(StartRefused(f"{file} could not be restored: {error.strerror}. Nothing was changed."))
    tell(f"Restored {file} into {settings.home}. Never run it beside the installation it was made of.")


async def _backup(settings: ServiceSettings, file: Path) -> None:
    if not settings.database_url and not (settings.home / "postgres").exists():
        raise StartRefused(f"There is no installation in {settings.home}. Set MILLRACE_HOME to the one to back up.")
    partial = file.with_name(f".{file.name}.partial")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as folder:
            dump = Path(folder) / _DUMP
            async with running_database(settings.home, settings.database_url) as url:
                _run("pg_dump", "--format=custom", "--no-owner", "--no-privileges", f"--file={dump}", url)
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as out:
                _write(out, dump, settings.home)
                out.flush()
                os.fsync(out.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _write(out: io.BufferedWriter, dump: Path, home: Path) -> None:
    about = {"format": _FORMAT, "postgresql": MAJOR, "made_at": datetime.now(UTC).isoformat(timespec="seconds")}
    manifest = json.dumps(about).encode()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo(_MANIFEST)
        entry.size = len(manifest)
        tar.addfile(entry, io.BytesIO(manifest))
        tar.add(dump, _DUMP)
        for path in _kept(home):
            tar.add(path, f"{_HOME}/{path.name}")


def _kept(home: Path) -> Iterator[Path]:
    for path in sorted(home.iterdir()) if home.exists() else ():
        if path.name not in _NOT_KEPT and not path.name.startswith("."):
            yield path


async def _restore(settings: ServiceSettings, file: Path) -> None:
    home = settings.home
    if home.exists() and any(home.iterdir()):
        raise StartRefused(f"{home} is not empty. Set MILLRACE_HOME to a folder where nothing is yet.")
    fresh = home.with_name(f"{home.name}.restoring")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700, parents=True)
    try:
        with tarfile.open(file) as tar:
            _check(json.loads(_member(tar, _MANIFEST).read()), file)
            with tempfile.NamedTemporaryFile(dir=fresh) as dump:
                shutil.copyfileobj(_member(tar, _DUMP), dump)
                dump.flush()
                await _fill(settings.database_url, fresh, Path(dump.name))
            for entry in tar.getmembers():
                if entry.name.startswith(f"{_HOME}/"):
                    entry.name = entry.name.removeprefix(f"{_HOME}/")
                    tar.extract(entry, fresh, filter="data")
        home.parent.mkdir(parents=True, exist_ok=True)
        fresh.rename(home)  # over an empty folder, too
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


async def _fill(database_url: str, home: Path, dump: Path) -> None:
    arguments = ("pg_restore", "--exit-on-error", "--single-transaction", "--no-owner")
    if database_url:
        _run(*arguments, f"--dbname={database_url}", str(dump))
        return
    async with EmbeddedPostgres(home / "postgres") as postgres:
        _run(*arguments, f"--dbname={postgres.url}", str(dump))


def _check(manifest: dict[str, object], file: Path) -> None:
    if manifest["format"] != _FORMAT or not isinstance(major := manifest["postgresql"], int) or major > MAJOR:
        raise StartRefused(f"{file} was made by a newer version of Millrace. Restore it with that one.")


def _member(tar: tarfile.TarFile, name: str) -> io.BufferedIOBase:
    found = tar.extractfile(name)
    if found is None:
        raise KeyError(name)
    return found  # type: ignore[return-value]  # typeshed says IO[bytes], which it is


def _run(program: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs. Raises: StartRefused with what it said."""
    command = [str(binaries() / program), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603  # of the installation
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise StartRefused(f"{program} failed: {said[-1] if said else 'it said nothing'}")
    if done.stderr:
        print(done.stderr, file=sys.stderr, end="")
