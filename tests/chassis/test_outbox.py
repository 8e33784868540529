"""What is told of a fact is told if and when the fact is committed (I9), wherever the log lives."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress

import pytest

from chassis.database import Database
from chassis.errors import TooLarge
from chassis.log import EARLIEST, Log, OutRecord
from chassis.log.postgres import PostgresLog
from chassis.outbox import Outbox
from tests.backings.postgres import PostgresBacking


@pytest.fixture
async def elsewhere(postgres: PostgresBacking, new_database_url: Callable[[], str]) -> AsyncIterator[PostgresLog]:
    """A log that the service's transactions do not reach, as Kafka is."""
    url = new_database_url()
    async with Database(url) as database, PostgresLog(database) as log:
        yield log
    postgres.drop_database(url)


@pytest.fixture
async def here(database: Database) -> AsyncIterator[PostgresLog]:
    async with PostgresLog(database) as log:
        yield log


@pytest.fixture(params=["here", "elsewhere"])
def log(request: pytest.FixtureRequest, here: PostgresLog, elsewhere: PostgresLog) -> Log:
    return here if request.param == "here" else elsewhere


@asynccontextmanager
async def relaying(*outboxes: Outbox) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(outbox.relay()) for outbox in outboxes]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def told(log: Log, topic: str, count: int) -> list[bytes]:
    async def start(partitions: frozenset[int]) -> Mapping[int, int]:
        return dict.fromkeys(partitions, EARLIEST)

    got: list[bytes] = []
    async with log.consumer(topic, None, start) as consumer, asyncio.timeout(20):
        while len(got) < count:
            got += [record.value for record in await consumer.batch(100)]
    return got


async def test_a_record_is_told_if_its_transaction_committed_and_never_if_not(database: Database, log: Log) -> None:
    await database.execute("CREATE TABLE fact (id int)")
    async with Outbox(database, log, "sample") as outbox, relaying(outbox):
        with pytest.raises(RuntimeError):
            async with database.transaction() as connection:
                await connection.execute("INSERT INTO fact VALUES (1)")
                await outbox.add(connection, "facts", b"k", b"1")
                raise RuntimeError
        async with database.transaction() as raw:
            await raw.execute("INSERT INTO fact VALUES (2)")
            await outbox.add(raw, "facts", b"k", b"2")
        assert await told(log, "facts", 1) == [b"2"]


async def test_records_are_told_in_order(database: Database, log: Log) -> None:
    async with Outbox(database, log, "sample") as outbox, relaying(outbox):
        for start in range(0, 40, 4):
            async with database.transaction() as connection:
                records = [OutRecord(b"k", b"%d" % n) for n in range(start, start + 4)]
                await outbox.add_all(connection, "facts", records)
        assert await told(log, "facts", 40) == [b"%d" % n for n in range(40)]


async def test_a_record_over_the_limit_is_refused_before_the_commit(database: Database, log: Log) -> None:
    async with Outbox(database, log, "sample") as outbox, database.transaction() as connection:
        with pytest.raises(TooLarge):
            await outbox.add(connection, "facts", b"k", b"x" * 300_000)


async def test_what_a_killed_process_left_is_told_by_the_next(database: Database, elsewhere: PostgresLog) -> None:
    async with Outbox(database, elsewhere, "sample") as outbox, database.transaction() as connection:
        await outbox.add(connection, "facts", b"k", b"1")
    async with Outbox(database, elsewhere, "sample") as outbox, relaying(outbox):
        assert await told(elsewhere, "facts", 1) == [b"1"]
        async with asyncio.timeout(10):
            while await database.fetchval("SELECT count(*) FROM sample.outbox"):
                await asyncio.sleep(0.01)


async def test_replicas_relay_in_turns_and_tell_each_record_once(database: Database, elsewhere: PostgresLog) -> None:
    async with (
        Outbox(database, elsewhere, "sample") as one,
        Outbox(database, elsewhere, "sample") as two,
        relaying(one, two),
    ):
        for n in range(60):
            async with database.transaction() as connection:
                await (one, two)[n % 2].add(connection, "facts", b"k", b"%d" % n)
        assert await told(elsewhere, "facts", 60) == [b"%d" % n for n in range(60)]
        assert (await elsewhere.bounds("facts"))[0].next == 60


async def test_a_log_that_is_away_delays_and_loses_nothing(
    database: Database, elsewhere: PostgresLog, postgres: PostgresBacking
) -> None:
    async with Outbox(database, elsewhere, "sample") as outbox:
        async with database.transaction() as connection:
            await outbox.add(connection, "facts", b"k", b"1")
        await asyncio.to_thread(postgres.kill)
        async with relaying(outbox):
            await asyncio.sleep(0.3)
            await asyncio.to_thread(postgres.start)
            assert await told(elsewhere, "facts", 1) == [b"1"]
