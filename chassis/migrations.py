"""Bringing the database to the shape this version expects, at start, once, whoever comes first.

Decides: one runner for all services: a schema and a `schema_version` row each, files `0001_name.py`, `0002_…` in
`services/<service>/migrations/versions/`, applied in order in one transaction under an advisory lock, all or none.
Leaves: what the files do to the services (`from alembic import op`, plain SQL in `op.execute`, any number of
statements; a colon before a letter is written `\\:`).
Running them to `migration_runner`, imported only when there is something to do.
Holds: data of a newer version is never touched: the start is refused with a sentence.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from chassis.database import connect_directly, mapped
from chassis.errors import StartRefused
from chassis.log import schema as log_schema

if TYPE_CHECKING:
    from chassis.database import Connection

VERSION_TABLE = "schema_version"

_LOCK = 0x6D696C6C72616365  # "millrace"
_SERVICE_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
_FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.py")
_SERVICES = Path(__file__).resolve().parent.parent / "services"

_log = structlog.get_logger(__name__)


async def migrate(database_url: str, service: str, versions: Path | None = None) -> None:
    """Bring the schema of a service to its newest revision; one short query when it is there already.

    `versions` is the folder of the files, `services/<service>/migrations/versions` unless given.
    Raises: StartRefused when the data was written by a newer version, or a file is misnamed; Unavailable DATABASE_AWAY.
    """
    if not _SERVICE_NAME.fullmatch(service):
        raise StartRefused(f"{service!r} is no name of a service: small letters, digits and underscores.")
    folder = versions or _SERVICES / service / "migrations" / "versions"
    revisions = _revisions(folder)
    if not revisions:
        return
    connection = await connect_directly(database_url)
    try:
        with mapped():
            found = await _current(connection, service)
    finally:
        await connection.close()
    if not _outdated(service, found, revisions):
        return
    from chassis import migration_runner as runner  # SQLAlchemy and Alembic come with it

    async with runner.locked(database_url, _LOCK) as transaction:
        found = await _current(await runner.driver_connection(transaction), service)
        if _outdated(service, found, revisions):  # nobody was faster
            await runner.upgrade(transaction, service, folder)
            _log.info("migrated", service=service, before=found, now=revisions[-1])


async def ensure_chassis(database_url: str) -> None:
    """Make or renew the tables of the log. A newer version of them serves us as well (its functions are versioned)."""
    connection = await connect_directly(database_url)
    try:
        with mapped():
            if await _log_version(connection) >= log_schema.VERSION:
                return
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
                if await _log_version(connection) >= log_schema.VERSION:
                    return
                await connection.execute(log_schema.DDL)
                await connection.execute("CREATE TABLE IF NOT EXISTS log.schema_version (version_num text NOT NULL)")
                await connection.execute("DELETE FROM log.schema_version")
                await connection.execute("INSERT INTO log.schema_version VALUES ($1)", f"{log_schema.VERSION:04}")
    finally:
        await connection.close()


async def run_locked(database_url: str, ddl: str) -> None:
    """Run idempotent DDL of the chassis in one transaction, one process at a time."""
    connection = await connect_directly(database_url)
    try:
        with mapped():
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
                await connection.execute(ddl)
    finally:
        await connection.close()


def _revisions(folder: Path) -> list[str]:
    """Return the revisions that the files' names tell, oldest first."""
    names = sorted(path.name for path in folder.glob("*.py") if path.name != "__init__.py")
    for place, name in enumerate(names, start=1):
        matched = _FILE_NAME.fullmatch(name)
        if matched is None or int(matched[1]) != place:
            raise StartRefused(f"{folder / name} is misnamed: migration {place} is called {place:04}_<what>.py.")
    return [name[:4] for name in names]


def _outdated(service: str, found: str | None, revisions: list[str]) -> bool:
    """Say whether there is something to do."""
    if found is None:
        return True
    if found not in revisions:
        raise StartRefused(
            f"The data of {service} was written by a newer version of Millrace (its revision is {found}, this version "
            f"knows up to {revisions[-1]}). Start that version, or restore a backup made before. Nothing was changed."
        )
    return found != revisions[-1]


async def _current(connection: Any, schema: str) -> str | None:
    """Return the revision stored in a schema, None when there is none yet; `connection` is asyncpg's."""
    if not await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", f'"{schema}".{VERSION_TABLE}'):
        return None
    found: str | None = await connection.fetchval(f'SELECT version_num FROM "{schema}".{VERSION_TABLE}')
    return found


async def _log_version(connection: "Connection") -> int:
    there = await connection.fetchval("SELECT to_regclass('log.schema_version') IS NOT NULL")
    return int(await connection.fetchval("SELECT max(version_num) FROM log.schema_version") or 0) if there else 0
