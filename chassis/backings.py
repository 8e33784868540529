"""Opens what a service stands on, as its settings name it: database, log, cache, blobs.

Decides: which adapter runs (architecture.md, Two backings), and that the schema is brought up to date before anything
reads it.
Leaves: each port to its own package. Domain code never asks which adapter it got.
"""

from __future__ import annotations

from chassis import cache
from chassis.cache import Cache
from chassis.database import Database
from chassis.lifecycle import Chassis
from chassis.log import Log, open_log
from chassis.migrations import ensure_chassis, migrate
from chassis.settings import ServiceSettings


def database_url(settings: ServiceSettings) -> str:
    """Where the database of this installation answers: as set, else the embedded PostgreSQL under `home`."""
    if settings.database_url:
        return settings.database_url
    from chassis.postgres import EmbeddedPostgres  # a cluster process needs none of it

    return EmbeddedPostgres(settings.home / "postgres").url


async def open_database(chassis: Chassis) -> Database:
    """The service's own schema, migrated.

    Raises StartRefused for data of a newer version; Unavailable DATABASE_AWAY.
    """
    url = database_url(chassis.settings)
    await migrate(url, chassis.name)
    return await chassis.open(Database(url, chassis.name))


async def open_topics(chassis: Chassis, database: Database) -> Log:
    """The log of this installation: in PostgreSQL, or in Kafka when one is set."""
    if not chassis.settings.kafka_bootstrap:
        await ensure_chassis(database.url)
    return await chassis.open(open_log(chassis.settings, database))


async def open_cache(chassis: Chassis) -> Cache:
    """The cache of this installation: in this process, or in Redis when one is set."""
    return await chassis.open(cache.open_cache(chassis.settings))
