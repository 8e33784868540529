"""The adapters of each port, as one parameter: a further adapter joins here and gets every test of its contract."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol
from uuid import uuid4

import pytest

from chassis.database import Database
from chassis.log import Log
from chassis.log.kafka import KafkaLog
from chassis.log.postgres import PostgresLog
from tests.backings.kafka import KafkaBacking
from tests.backings.postgres import PostgresBacking


class LogBacking(Protocol):
    """A log's server, and how to open the log as one process does."""

    def open(self, partitions: int = ..., publish_timeout_s: float = ...) -> AbstractAsyncContextManager[Log]: ...
    async def kill(self) -> None: ...
    async def start(self) -> None: ...


class PostgresLogBacking:
    """The log in an embedded PostgreSQL."""

    def __init__(self, server: PostgresBacking, url: str) -> None:
        self._server = server
        self._url = url

    @asynccontextmanager
    async def open(self, partitions: int = 2, publish_timeout_s: float = 10.0) -> AsyncIterator[Log]:
        async with (
            Database(self._url) as database,
            PostgresLog(database, partitions=partitions, publish_timeout_s=publish_timeout_s) as log,
        ):
            yield log

    async def kill(self) -> None:
        await asyncio.to_thread(self._server.kill)

    async def start(self) -> None:
        await asyncio.to_thread(self._server.start)


class KafkaLogBacking:
    """The log in a real Apache Kafka."""

    def __init__(self, server: KafkaBacking) -> None:
        self._server = server

    @asynccontextmanager
    async def open(self, partitions: int = 2, publish_timeout_s: float = 10.0) -> AsyncIterator[Log]:
        log = KafkaLog(self._server.bootstrap, partitions=partitions, publish_timeout_s=publish_timeout_s)
        async with log:
            yield log

    async def kill(self) -> None:
        await asyncio.to_thread(self._server.kill)

    async def start(self) -> None:
        await asyncio.to_thread(self._server.start)


@pytest.fixture(params=["postgres", "kafka"])
def backing(request: pytest.FixtureRequest) -> Any:
    """Each log adapter in turn, its server running."""
    if request.param == "postgres":
        return PostgresLogBacking(
            request.getfixturevalue("postgres"),
            request.getfixturevalue("database_url"),
        )
    kafka: KafkaBacking = request.getfixturevalue("kafka")
    kafka.start()  # a test before this one may have left it killed
    return KafkaLogBacking(kafka)


@pytest.fixture
async def log(backing: LogBacking) -> AsyncIterator[Log]:
    """An opened log with two partitions a topic."""
    async with backing.open() as opened:
        yield opened


@pytest.fixture
def topic() -> str:
    """A topic of this test's own."""
    return f"t-{uuid4().hex[:12]}"
