"""The promises of the cache port (`chassis/cache/contract.md`), kept by every adapter."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest

from chassis.cache import Cache, Lagged, MemoryCache
from chassis.cache.port import SUBSCRIBER_QUEUE
from chassis.cache.redis import RedisCache
from chassis.clock import ManualClock
from chassis.errors import Unavailable
from tests.backings.redis import RedisBacking


class MemoryBacking:
    """One process: every user shares the object; time is turned by hand."""

    def __init__(self) -> None:
        self._clock = ManualClock()
        self._cache = MemoryCache(self._clock)

    def open(self) -> Cache:
        return self._cache

    async def let_pass(self, seconds: float) -> None:
        self._clock.advance(seconds)


class RedisCacheBacking:
    """A real Redis: every user is a client of its own."""

    def __init__(self, server: RedisBacking) -> None:
        self._server = server

    def open(self) -> Cache:
        return RedisCache(self._server.url)

    async def let_pass(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@pytest.fixture(params=["memory", "redis"])
def backing(request: pytest.FixtureRequest) -> Any:
    if request.param == "memory":
        return MemoryBacking()
    server: RedisBacking = request.getfixturevalue("redis")
    server.start()
    return RedisCacheBacking(server)


@pytest.fixture
async def cache(backing: Any) -> AsyncIterator[Cache]:
    async with backing.open() as opened:
        yield opened


@pytest.fixture
def key() -> str:
    return uuid4().hex


async def test_a_value_is_found_until_its_time_is_over(backing: Any, cache: Cache, key: str) -> None:
    assert await cache.get(key) is None
    await cache.set(key, b"\x00value", ttl_s=0.3)
    assert await cache.get(key) == b"\x00value"
    await backing.let_pass(0.4)
    assert await cache.get(key) is None


async def test_a_deleted_value_is_gone(cache: Cache, key: str) -> None:
    await cache.set(key, b"1", ttl_s=60)
    await cache.delete(key)
    await cache.delete(key)
    assert await cache.get(key) is None


async def test_only_one_of_many_adds_a_value(backing: Any, cache: Cache, key: str) -> None:
    added = await asyncio.gather(*(cache.add(key, b"%d" % n, ttl_s=0.3) for n in range(20)))
    assert sum(added) == 1
    assert await cache.get(key) == b"%d" % added.index(True)
    await backing.let_pass(0.4)
    assert await cache.add(key, b"again", ttl_s=60)


async def test_hits_are_counted_in_windows_over_all_who_share_the_cache(backing: Any, cache: Cache, key: str) -> None:
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(backing.open())
        counted = await asyncio.gather(*(one.incr_window(key, 0.5) for one in (cache, other) for _ in range(25)))
        assert sorted(window.hits for window in counted) == list(range(1, 51))
        assert all(0 < window.resets_in_s <= 0.5 for window in counted)
        await backing.let_pass(0.6)
        assert (await cache.incr_window(key, 0.5, by=3)).hits == 3


async def test_a_message_reaches_all_who_listen_in_order(backing: Any, cache: Cache, key: str) -> None:
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(backing.open())
        subscriptions = [await stack.enter_async_context(one.subscribe(key)) for one in (cache, cache, other)]
        for n in range(50):
            await cache.publish(key, b"%d" % n)
        for subscription in subscriptions:
            got: list[bytes | Lagged] = []
            async with asyncio.timeout(10):
                async for message in subscription:
                    got.append(message)
                    if len(got) == 50:
                        break
            assert got == [b"%d" % n for n in range(50)]


async def test_channels_are_apart_and_an_ended_subscription_gets_nothing(cache: Cache, key: str) -> None:
    async with cache.subscribe(f"{key}-a") as one:
        async with cache.subscribe(f"{key}-b"):
            pass
        await cache.publish(f"{key}-b", b"other")
        await cache.publish(f"{key}-a", b"mine")
        async with asyncio.timeout(10):
            assert await anext(aiter(one)) == b"mine"


async def test_a_slow_subscriber_loses_the_oldest_and_is_told_and_slows_nobody(cache: Cache, key: str) -> None:
    async with cache.subscribe(key) as slow, cache.subscribe(key) as quick:
        reader = aiter(quick)
        for n in range(SUBSCRIBER_QUEUE + 10):
            await cache.publish(key, b"%d" % n)
            async with asyncio.timeout(10):
                assert await anext(reader) == b"%d" % n
        got: list[bytes | Lagged] = []
        async with asyncio.timeout(10):
            async for message in slow:
                got.append(message)
                if message == b"%d" % (SUBSCRIBER_QUEUE + 9):
                    break
        assert got[0] == Lagged(10)
        assert got[1:] == [b"%d" % n for n in range(10, SUBSCRIBER_QUEUE + 10)]


async def test_the_memory_of_a_process_stays_bounded() -> None:
    cache = MemoryCache(ManualClock(), max_keys=100)
    for n in range(1000):
        await cache.set(f"k{n}", b"x", ttl_s=1000 + n)
    found = [n for n in range(1000) if await cache.get(f"k{n}") is not None]
    assert len(found) <= 100
    assert found[-1] == 999


async def test_a_redis_that_is_flushed_starts_to_count_anew(redis: RedisBacking, key: str) -> None:
    redis.start()
    async with RedisCache(redis.url) as cache:
        await cache.incr_window(key, 60)
        await cache.set(key, b"1", ttl_s=60)
        redis.kill()
        redis.start()
        assert (await cache.incr_window(key, 60)).hits == 1
        assert await cache.get(key) is None


async def test_a_redis_that_is_away_is_said_in_time_and_subscriptions_go_on_when_it_is_back(
    redis: RedisBacking, key: str
) -> None:
    redis.start()
    async with RedisCache(redis.url) as cache, cache.subscribe(key) as subscription:
        redis.kill()
        with pytest.raises(Unavailable, match="CACHE_AWAY"):
            async with asyncio.timeout(5):
                await cache.publish(key, b"lost")
        redis.start()
        async with asyncio.timeout(20):
            assert await anext(aiter(subscription)) == Lagged(0)
            await cache.publish(key, b"after")
            assert await anext(aiter(subscription)) == b"after"
