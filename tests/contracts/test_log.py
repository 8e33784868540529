"""The promises of the log port (`chassis/log/contract.md`), kept by every adapter against its real server."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from chassis.errors import TooLarge, Unavailable
from chassis.log import EARLIEST, LATEST, Log, LogConsumer, OutRecord, PositionLost, Record
from tests.contracts.conftest import LogBacking

_PATIENCE_S = 40.0


async def from_earliest(partitions: frozenset[int]) -> Mapping[int, int]:
    return dict.fromkeys(partitions, EARLIEST)


class Owner:
    """Keeps a position as a consumer's owner does, and remembers what it was asked."""

    def __init__(self, start: int = EARLIEST) -> None:
        self._start = start
        self.positions: dict[int, int] = {}
        self.asked: list[frozenset[int]] = []

    async def assigned(self, partitions: frozenset[int]) -> Mapping[int, int]:
        self.asked.append(partitions)
        return {partition: self.positions.get(partition, self._start) for partition in partitions}

    def take(self, records: list[Record]) -> None:
        for record in records:
            self.positions[record.partition] = record.offset + 1


def numbered(count: int, start: int = 0) -> list[OutRecord]:
    return [OutRecord(f"key-{n % 7}".encode(), str(n).encode()) for n in range(start, start + count)]


async def read(consumer: LogConsumer, count: int) -> list[Record]:
    """Read until `count` records have come."""
    records: list[Record] = []
    async with asyncio.timeout(_PATIENCE_S):
        while len(records) < count:
            records += await consumer.batch(100)
    return records


async def read_all(log: Log, topic: str, count: int) -> list[Record]:
    async with log.consumer(topic, None, from_earliest) as consumer:
        return await read(consumer, count)


def values(records: list[Record]) -> list[int]:
    return sorted(int(record.value) for record in records)


async def test_what_was_published_survives_a_kill_of_the_server(backing: LogBacking, topic: str) -> None:
    async with backing.open() as log:
        await log.publish(topic, numbered(50))
        epoch = await log.epoch(topic)
        await backing.kill()
    await backing.start()
    async with backing.open() as log:
        assert values(await read_all(log, topic, 50)) == list(range(50))
        assert await log.epoch(topic) == epoch


async def test_records_are_read_in_order_by_partition_and_one_key_stays_in_one(log: Log, topic: str) -> None:
    for start in range(0, 200, 40):
        await log.publish(topic, numbered(40, start))
    records = await read_all(log, topic, 200)
    homes: dict[bytes, set[int]] = {}
    for partition in {record.partition for record in records}:
        own = [record for record in records if record.partition == partition]
        assert [record.offset for record in own] == list(range(len(own)))
        assert [int(record.value) for record in own] == sorted(int(record.value) for record in own)
    for record in records:
        homes.setdefault(record.key, set()).add(record.partition)
    assert all(len(home) == 1 for home in homes.values())
    assert len({record.partition for record in records}) == 2


async def test_concurrent_publishers_all_find_their_records_kept(log: Log, topic: str) -> None:
    await asyncio.gather(*(log.publish(topic, numbered(3, 3 * n)) for n in range(100)))
    assert values(await read_all(log, topic, 300)) == list(range(300))


async def test_a_publisher_that_gives_up_harms_no_other(log: Log, topic: str) -> None:
    gone = asyncio.create_task(log.publish(topic, numbered(1, 1000)))
    others = [asyncio.create_task(log.publish(topic, numbered(1, n))) for n in range(20)]
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(*others)
    assert set(range(20)) <= {int(record.value) for record in await read_all(log, topic, 20)} | {1000}


async def test_keys_and_values_are_any_bytes(log: Log, topic: str) -> None:
    wanted = [OutRecord(b"", b""), OutRecord(b"\x00\xff", bytes(range(256)) * 1000)]
    await log.publish(topic, wanted)
    got = [(record.key, record.value) for record in await read_all(log, topic, 2)]
    assert sorted(got) == sorted((record.key, record.value) for record in wanted)


async def test_a_record_over_the_limit_is_refused_and_nothing_of_its_batch_is_kept(log: Log, topic: str) -> None:
    with pytest.raises(TooLarge, match="LOG_RECORD_TOO_LARGE"):
        await log.publish(topic, [OutRecord(b"k", b"1"), OutRecord(b"k", b"x" * 256 * 1024)])
    await log.publish(topic, numbered(1, 2))
    assert values(await read_all(log, topic, 1)) == [2]


async def test_reading_goes_on_exactly_where_the_owner_says(log: Log, topic: str) -> None:
    owner = Owner()
    await log.publish(topic, numbered(60))
    async with log.consumer(topic, "group", owner.assigned) as consumer:
        async with asyncio.timeout(_PATIENCE_S):
            first = await consumer.batch(7)
        assert len(first) <= 7
        owner.take(first)
    async with log.consumer(topic, "group", owner.assigned) as consumer:
        rest = await read(consumer, 60 - len(first))
    assert values(first + rest) == list(range(60))


async def test_the_owner_may_go_back_and_reads_the_same_again(log: Log, topic: str) -> None:
    await log.publish(topic, numbered(10))
    first = await read_all(log, topic, 10)
    again = await read_all(log, topic, 10)
    assert sorted(first) == sorted(again)


async def test_from_latest_only_what_comes_is_read(log: Log, topic: str) -> None:
    await log.publish(topic, numbered(10))
    async with log.consumer(topic, None, Owner(LATEST).assigned) as consumer:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(consumer.batch(10), 2)
        await log.publish(topic, numbered(3, 10))
        assert values(await read(consumer, 3)) == [10, 11, 12]


@asynccontextmanager
async def at(log: Log, topic: str, start: int | None) -> AsyncIterator[LogConsumer]:
    async def answer(partitions: frozenset[int]) -> Mapping[int, int]:
        return {} if start is None else dict.fromkeys(partitions, start)

    async with log.consumer(topic, None, answer) as consumer, asyncio.timeout(_PATIENCE_S):
        yield consumer


@pytest.mark.parametrize("start", [1000, None])
async def test_a_position_that_cannot_be_stops_the_reader_again_and_again(
    log: Log, topic: str, start: int | None
) -> None:
    await log.publish(topic, numbered(10))
    async with at(log, topic, start) as consumer:
        for _ in range(2):
            with pytest.raises(PositionLost, match="LOG_POSITION_LOST"):
                await consumer.batch(10)


async def test_a_position_that_was_trimmed_away_stops_the_reader(log: Log, topic: str) -> None:
    await log.publish(topic, [OutRecord(b"one-key", str(n).encode()) for n in range(20)])
    partition = (await read_all(log, topic, 20))[0].partition
    await log.trim(topic, partition, 5)
    assert (await log.bounds(topic))[partition].first == 5
    async with at(log, topic, 0) as consumer:
        with pytest.raises(PositionLost):
            for _ in range(3):  # the other partition, empty, may be looked at first
                await consumer.batch(10)
    assert values(await read_all(log, topic, 15)) == list(range(5, 20))


async def test_the_owner_is_asked_again_after_a_lost_position_and_may_give_a_possible_one(log: Log, topic: str) -> None:
    await log.publish(topic, numbered(10))
    owner = Owner(start=1000)
    async with log.consumer(topic, None, owner.assigned) as consumer:
        with pytest.raises(PositionLost):
            await consumer.batch(10)
        owner.positions = dict.fromkeys(owner.asked[-1], 0)
        assert values(await read(consumer, 10)) == list(range(10))


async def test_what_the_owner_raises_is_raised_to_the_reader_who_may_ask_again(log: Log, topic: str) -> None:
    await log.publish(topic, numbered(5))
    refusals = [Unavailable("SOMETHING", "The owner's store is away.", retry_after_s=1.0)]

    async def answer(partitions: frozenset[int]) -> Mapping[int, int]:
        if refusals:
            raise refusals.pop()
        return dict.fromkeys(partitions, EARLIEST)

    async with log.consumer(topic, "group", answer) as consumer:
        with pytest.raises(Unavailable, match="SOMETHING"):
            async with asyncio.timeout(_PATIENCE_S):
                await consumer.batch(10)
        assert values(await read(consumer, 5)) == list(range(5))


async def test_a_topic_made_anew_has_another_epoch(log: Log, topic: str) -> None:
    await log.publish(topic, numbered(3))
    first = await log.epoch(topic)
    assert await log.epoch(topic) == first
    await log.delete(topic)
    await log.publish(topic, numbered(1, 7))
    assert await log.epoch(topic) != first
    assert values(await read_all(log, topic, 1)) == [7]


async def test_a_topic_made_anew_while_it_is_read_soon_stops_the_reader(log: Log, topic: str) -> None:
    await log.publish(topic, numbered(5))
    owner = Owner()
    async with log.consumer(topic, None, owner.assigned) as consumer:
        owner.take(await read(consumer, 5))
        await log.delete(topic)
        await log.publish(topic, numbered(50))
        with pytest.raises(PositionLost):
            async with asyncio.timeout(_PATIENCE_S):
                while True:  # what lies beyond the old positions may be read until the change is seen
                    for record in await consumer.batch(10):
                        assert record.offset >= owner.positions.get(record.partition, 0)


async def test_a_paused_reader_gets_nothing_until_it_goes_on(log: Log, topic: str) -> None:
    await log.publish(topic, numbered(5))
    async with log.consumer(topic, "group", from_earliest) as consumer:
        await read(consumer, 5)
        consumer.pause()
        await log.publish(topic, numbered(5, 5))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(consumer.batch(10), 2)
        consumer.resume()
        assert values(await read(consumer, 5)) == list(range(5, 10))


async def test_a_batch_that_is_cancelled_loses_nothing(log: Log, topic: str) -> None:
    async with log.consumer(topic, None, from_earliest) as consumer:
        got: list[Record] = []
        async with asyncio.timeout(_PATIENCE_S):
            for n in range(30):
                await log.publish(topic, numbered(1, n))
                try:
                    got += await asyncio.wait_for(consumer.batch(10), 0.002)
                except TimeoutError:
                    continue
            while len(got) < 30:
                got += await consumer.batch(10)
        assert values(got) == list(range(30))


async def _settled(owners: list[Owner], consumers: list[LogConsumer], wanted: list[int]) -> None:
    """Keep all members reading until their shares have the wanted sizes."""

    async def keep(owner: Owner, consumer: LogConsumer) -> None:
        while True:
            owner.take(await consumer.batch(10))

    async with asyncio.timeout(_PATIENCE_S):
        members = [asyncio.create_task(keep(owner, one)) for owner, one in zip(owners, consumers, strict=True)]
        try:
            while sorted(len(one.assignment) for one in consumers) != wanted or any(
                member.done() for member in members
            ):
                for member in members:
                    if member.done():
                        member.result()
                await asyncio.sleep(0.05)
        finally:
            for member in members:
                member.cancel()
            await asyncio.gather(*members, return_exceptions=True)


async def test_members_of_a_group_share_the_partitions_and_are_asked_when_one_comes_or_goes(
    backing: LogBacking, topic: str
) -> None:
    one, two = Owner(), Owner()
    async with backing.open() as first, backing.open() as second:
        await first.publish(topic, numbered(20))
        async with first.consumer(topic, "group", one.assigned) as left:
            one.take(await read(left, 20))
            assert left.assignment == {0, 1}
            async with second.consumer(topic, "group", two.assigned) as right:
                await _settled([one, two], [left, right], [1, 1])
                assert left.assignment | right.assignment == {0, 1}
            await _settled([one], [left], [2])
        assert one.asked[0] == {0, 1}
        assert any(len(share) == 1 for share in one.asked)
        assert one.asked[-1] == {0, 1}
        assert any(len(share) == 1 for share in two.asked)


async def test_readers_without_a_group_each_read_everything(backing: LogBacking, topic: str) -> None:
    async with backing.open() as first, backing.open() as second:
        await first.publish(topic, numbered(20))
        left, right = await asyncio.gather(read_all(first, topic, 20), read_all(second, topic, 20))
    assert values(left) == values(right) == list(range(20))


async def test_while_the_server_is_away_a_publish_raises_in_time_and_later_works_again(
    backing: LogBacking, topic: str
) -> None:
    async with backing.open(publish_timeout_s=2.0) as log:
        await log.publish(topic, numbered(1))
        await backing.kill()
        with pytest.raises(Unavailable, match="LOG_AWAY") as raised:
            async with asyncio.timeout(10):
                await log.publish(topic, numbered(1, 1))
        assert raised.value.retry_after_s
        await backing.start()
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                try:
                    await log.publish(topic, numbered(1, 2))
                    break
                except Unavailable:
                    await asyncio.sleep(0.2)
        kept = {int(record.value) for record in await read_all(log, topic, 2)}
        assert {0, 2} <= kept | {2}


async def test_a_reader_waits_for_a_server_that_is_away_and_goes_on_by_itself(backing: LogBacking, topic: str) -> None:
    owner = Owner()
    async with backing.open() as log:
        await log.publish(topic, numbered(5))
        async with log.consumer(topic, "group", owner.assigned) as consumer:
            owner.take(await read(consumer, 5))
            await backing.kill()
            waiting = asyncio.create_task(consumer.batch(10))
            await asyncio.sleep(0.5)
            await backing.start()
            async with backing.open() as other:
                await other.publish(topic, numbered(1, 5))
            async with asyncio.timeout(_PATIENCE_S):
                assert values(await waiting) == [5]
