"""Runs the files of migrations by Alembic, in one transaction under a lock.

Leaves: whether there is something to run to `migrations`, which imports this module only then: SQLAlchemy and Alembic,
which nothing else needs, take 0.5 s and 40 MiB.
Decides: that all files of a service run in one transaction, and where Alembic notes how far it came.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event, pool, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.sql.elements import TextClause
from sqlalchemy.util import await_only

from chassis.database import connect_directly

VERSION_TABLE = "schema_version"


@asynccontextmanager
async def locked(database_url: str, lock: int) -> AsyncIterator[AsyncConnection]:
    """Lend a connection of its own in a transaction that holds the advisory lock until its end."""
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: connect_directly(database_url), poolclass=pool.NullPool
    )
    event.listen(engine.sync_engine, "do_execute", _run_script)
    event.listen(engine.sync_engine, "do_execute_no_params", _run_script)
    try:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock})
            yield connection
    finally:
        await engine.dispose()


async def driver_connection(connection: AsyncConnection) -> Any:
    """Return asyncpg's connection under SQLAlchemy's."""
    return (await connection.get_raw_connection()).driver_connection


async def upgrade(connection: AsyncConnection, service: str, folder: Path) -> None:
    """Make the service's schema when it is missing, and run every file it has not had yet."""
    await connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{service}"'))
    await connection.run_sync(_upgrade, service, folder)


def _run_script(cursor: Any, statement: str, *rest: Any) -> bool:
    """Send text without parameters as it stands: several statements are then allowed, which a prepared one refuses."""
    context = rest[-1]
    written = getattr(context, "compiled", None)
    if written is None or not isinstance(written.statement, TextClause) or (len(rest) > 1 and rest[0]):
        return False
    await_only(cursor._adapt_connection.driver_connection.execute(statement))
    return True


def _upgrade(connection: Connection, service: str, folder: Path) -> None:
    script = ScriptDirectory(str(folder), version_locations=[str(folder)])

    def steps(revision: Any, _context: Any) -> Any:
        return script._upgrade_revs("head", revision)

    with EnvironmentContext(Config(), script, fn=steps) as environment:
        environment.configure(
            connection=connection,
            target_metadata=None,
            version_table=VERSION_TABLE,
            version_table_schema=service,
            transaction_per_migration=False,
        )
        environment.run_migrations()
