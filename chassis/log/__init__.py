"""The log: topics that work travels through, in PostgreSQL or Kafka behind one port. Promises: `contract.md`."""

from typing import Protocol

from chassis.database import Database
from chassis.log.port import EARLIEST, LATEST, Bounds, Log, LogConsumer, OnAssigned, OutRecord, PositionLost, Record

__all__ = [
    "EARLIEST",
    "LATEST",
    "Bounds",
    "Log",
    "LogConsumer",
    "OnAssigned",
    "OutRecord",
    "PositionLost",
    "Record",
    "open_log",
]


class LogSettings(Protocol):
    """What decides where the log is."""

    @property
    def kafka_bootstrap(self) -> str:
        """Return `host:port,…` of Kafka; empty: the log is in PostgreSQL."""
        ...


def open_log(settings: LogSettings, database: Database, *, partitions: int = 0) -> Log:
    """Return the log of this installation, to be opened as an async context; the only place that chooses.

    `partitions` is how many a new topic gets; 0: the adapter's own number (PostgreSQL 1, Kafka 8).
    """
    # Imported here: who has no Kafka pays nothing for its client, and the log's tables stand below `migrations`.
    if settings.kafka_bootstrap:
        from chassis.log.kafka import DEFAULT_PARTITIONS, KafkaLog

        return KafkaLog(settings.kafka_bootstrap, partitions=partitions or DEFAULT_PARTITIONS)
    from chassis.log.postgres import PostgresLog

    return PostgresLog(database, partitions=partitions or 1)
