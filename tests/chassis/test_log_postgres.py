"""What the PostgreSQL adapter keeps beyond the port: order of visibility, facts and records in one commit."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import asyncpg
import pytest

from chassis.database import Database
from chassis.log import EARLIEST, OutRecord
from chassis.log.postgres import PostgresLog


@pytest.fixture
async def log(database: Database) -> AsyncIterator[PostgresLog]:
    async with PostgresLog(database) as opened:
        yield opened


async def from_earliest(partitions: frozenset[int]) -> Mapping[int, int]:
    return dict.fromkeys(partitions, EARLIEST)


async def test_a_reader_never_passes_over_the_record_of_a_slower_writer(log: PostgresLog, database: Database) -> None:
    """A sequence handed out before the commit lost the slow writer's record for ever."""
    await log.publish("t", [OutRecord(b"k", b"0")])
    slow = await asyncpg.connect(database.url)
    transaction = slow.transaction()
    await transaction.start()
    await log.append_in(slow, "t", [OutRecord(b"k", b"slow")])
    fast = asyncio.create_task(log.publish("t", [OutRecord(b"k", b"fast")]))
    async with log.consumer("t", None, from_earliest) as consumer, asyncio.timeout(20):
        assert [r.value for r in await consumer.batch(10)] == [b"0"]
        reading = asyncio.create_task(consumer.batch(10))
        await asyncio.sleep(0.3)
        assert not reading.done()
        await transaction.commit()
        await fast
        got = await reading
        while len(got) < 2:
            got += await consumer.batch(10)
        assert [(r.offset, r.value) for r in got] == [(1, b"slow"), (2, b"fast")]
    await slow.close()


async def test_a_writer_that_rolls_back_leaves_no_gap(log: PostgresLog, database: Database) -> None:
    with pytest.raises(RuntimeError):
        async with database.transaction() as connection:
            await log.append_in(connection, "t", [OutRecord(b"k", b"never")])
            raise RuntimeError
    await log.publish("t", [OutRecord(b"k", b"first")])
    async with log.consumer("t", None, from_earliest) as consumer:
        assert [(r.offset, r.value) for r in await consumer.batch(10)] == [(0, b"first")]


async def test_a_fact_and_its_record_are_one_commit(log: PostgresLog, database: Database) -> None:
    await database.execute("CREATE TABLE fact (id int)")
    with pytest.raises(RuntimeError):
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO fact VALUES (1)")
            await log.append_in(connection, "t", [OutRecord(b"k", b"1")])
            raise RuntimeError
    async with database.transaction() as connection:
        await connection.execute("INSERT INTO fact VALUES (2)")
        await log.append_in(connection, "t", [OutRecord(b"k", b"2")])
    async with log.consumer("t", None, from_earliest) as consumer:
        assert [r.value for r in await consumer.batch(10)] == [b"2"]
    assert [row["id"] for row in await database.fetch("SELECT id FROM fact")] == [2]


async def test_concurrent_publishers_share_few_commits(log: PostgresLog, database: Database) -> None:
    await log.publish("t", [OutRecord(b"k", b"0")])
    before = await database.fetchval("SELECT pg_current_xact_id()::text::bigint")
    await asyncio.gather(*(log.publish("t", [OutRecord(b"k", b"%d" % n)]) for n in range(1000)))
    after = await database.fetchval("SELECT pg_current_xact_id()::text::bigint")
    assert after - before < 20


async def test_a_consumer_goes_on_without_a_single_notification(log: PostgresLog, database: Database) -> None:
    """NOTIFY is a hint: what is written without one is found by the poll."""
    await log.publish("t", [OutRecord(b"k", b"0")])
    async with log.consumer("t", "g", from_earliest) as consumer, asyncio.timeout(20):
        await consumer.batch(10)
        await database.execute(
            """WITH head AS (UPDATE log.head SET next_offset = next_offset + 1
                             RETURNING topic_id, next_offset - 1 AS at)
               INSERT INTO log.record SELECT topic_id, 0, at, 'k', 'quiet' FROM head"""
        )
        assert [r.value for r in await consumer.batch(10)] == [b"quiet"]


async def test_the_membership_of_a_consumer_whose_connection_dies_is_taken_again(
    log: PostgresLog, database: Database
) -> None:
    asked: list[frozenset[int]] = []

    async def answer(partitions: frozenset[int]) -> Mapping[int, int]:
        asked.append(partitions)
        return dict.fromkeys(partitions, EARLIEST)

    await log.publish("t", [OutRecord(b"k", b"0")])
    async with log.consumer("t", "g", answer) as consumer, asyncio.timeout(20):
        await consumer.batch(10)
        await database.execute(
            """SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
        )
        assert [r.value for r in await consumer.batch(10)] == [b"0"]  # asked again, the owner went back
    assert asked == [{0}, {0}]


async def test_several_topics_appended_in_one_transaction_in_order_do_not_wait_for_each_other(
    log: PostgresLog, database: Database
) -> None:
    async def write(n: int) -> None:
        async with database.transaction() as connection:
            for topic in ("a", "b", "c"):
                await log.append_in(connection, topic, [OutRecord(b"k", b"%d" % n)])

    await asyncio.gather(*(write(n) for n in range(30)))
    assert {topic: (await log.bounds(topic))[0].next for topic in ("a", "b", "c")} == {"a": 30, "b": 30, "c": 30}


async def test_large_values_come_in_batches_of_a_few_megabytes(log: PostgresLog, database: Database) -> None:
    for _ in range(5):
        await log.publish("t", [OutRecord(b"k", b"x" * 250_000) for _ in range(16)])
    sizes: list[int] = []
    async with log.consumer("t", None, from_earliest) as consumer, asyncio.timeout(20):
        while sum(sizes) < 80:
            sizes.append(len(await consumer.batch(1000)))
    assert max(sizes) <= 34
    with pytest.raises(asyncpg.PostgresError):
        await database.execute("SELECT log.append_v1('none', NULL, ARRAY['k'::bytea], ARRAY['v'::bytea])")
