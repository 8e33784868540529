"""`millrace migrate`, and the database that this command and backups work on.

Decides: that a database which does not run is started for as long. Leaves: the tables to chassis/migrations.py.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

from chassis.errors import StartRefused, Unavailable
from chassis.supervisor import EXIT_REFUSED
from cli.printing import tell


def migrate() -> None:
    """Bring the tables of all services to this version. Every service does so for itself at its start."""
    from chassis.settings import ServiceSettings

    try:
        settings = ServiceSettings()
        asyncio.run(_migrate(settings.home, settings.database_url))
    except (StartRefused, Unavailable) as error:
        refuse(error)
    tell("The tables of all services are those of this version.")


async def _migrate(home: Path, database_url: str) -> None:
    from chassis.migrations import ensure_chassis
    from chassis.migrations import migrate as migrate_service
    from cli.up import SERVICES

    async with running_database(home, database_url) as url:
        await ensure_chassis(url)
        for service in SERVICES:
            await migrate_service(url, service)


@asynccontextmanager
async def running_database(home: Path, database_url: str) -> AsyncIterator[str]:
    """The database's address: as set, else the embedded one's, which is started for as long if it does not run."""
    from chassis.database import connect_directly
    from chassis.postgres import EmbeddedPostgres

    if database_url:
        yield database_url
        return
    embedded = EmbeddedPostgres(home / "postgres")
    try:
        await (await connect_directly(embedded.url)).close()
    except Unavailable:
        async with embedded:
            yield embedded.url
    else:
        yield embedded.url


def refuse(error: StartRefused | Unavailable) -> NoReturn:
    """End the process with the error's sentence."""
    print(f"millrace: {error.message if isinstance(error, Unavailable) else error}", file=sys.stderr)
    sys.exit(EXIT_REFUSED)
