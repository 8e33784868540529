"""A sender's key collapses to the first run, whatever dies in between (I2)."""

import asyncio
import json
from uuid import UUID

import pytest

from chassis import failpoints
from chassis.ids import bytes_of, new_id
from services.webhooks.idempotency import key_of
from services.webhooks.idempotency_store import IdempotencyStore
from tests.services.webhooks.neighbours import Installation

pytestmark = pytest.mark.asyncio(loop_scope="module")
KEYED = {"input": {"idempotency_header": "X-Event-Id", "idempotency_path": "body.id"}}
ROWS = "SELECT run_id, published FROM webhooks.idempotency WHERE flow_id = $1"


async def post(webhooks: Installation, flow_id: str, key: str | None, body: bytes = b"{}") -> str:
    answer = await webhooks.post(flow_id, body, headers={"x-event-id": key})
    assert answer.status == 200, answer.body
    run_id: str = json.loads(answer.body)["run_id"]
    return run_id


async def published_mark(webhooks: Installation, flow_id: str) -> None:
    async with asyncio.timeout(10):
        while not all(row["published"] for row in await webhooks.database.fetch(ROWS, flow_id)):
            await asyncio.sleep(0.01)


async def test_duplicates_at_once_and_later_are_one_run(webhooks: Installation) -> None:
    flow_id = webhooks.flow(KEYED)
    at_once = await asyncio.gather(*(post(webhooks, flow_id, "a") for _ in range(50)))
    await published_mark(webhooks, flow_id)
    later = await post(webhooks, flow_id, "a")
    assert {*at_once, later} == {at_once[0]}
    assert {request.run_id for request in await webhooks.published(flow_id)} == {bytes_of(at_once[0])}
    assert await post(webhooks, flow_id, "b") != later


async def test_a_published_duplicate_adds_nothing_to_the_log(webhooks: Installation) -> None:
    flow_id = webhooks.flow(KEYED)
    await post(webhooks, flow_id, "a")
    await published_mark(webhooks, flow_id)
    for _ in range(3):
        await post(webhooks, flow_id, "a")
    assert len(await webhooks.published(flow_id)) == 1


async def test_a_key_counts_within_its_flow_and_trigger(webhooks: Installation) -> None:
    one, other = webhooks.flow(KEYED), webhooks.flow(KEYED)
    assert await post(webhooks, one, "a") != await post(webhooks, other, "a")
    assert key_of(one, "x", "a") != key_of(one, "y", "a")
    assert key_of(one, "xa", "") != key_of(one, "x", "a")


async def test_a_key_in_the_body_counts_where_the_header_is_missing(webhooks: Installation) -> None:
    flow_id = webhooks.flow(KEYED)
    first = await post(webhooks, flow_id, None, b'{"id":7}')
    assert await post(webhooks, flow_id, None, b'{"id": 7, "again": true}') == first
    assert await post(webhooks, flow_id, "7", b'{"id":8}') == first
    assert await post(webhooks, flow_id, None, b'{"id":8}') != first


async def test_without_a_key_nothing_is_asked_of_the_database(webhooks: Installation) -> None:
    flow_id = webhooks.flow(KEYED)
    assert await post(webhooks, flow_id, None) != await post(webhooks, flow_id, None)
    assert await webhooks.database.fetch(ROWS, flow_id) == []


async def test_a_crash_between_key_and_publish_is_closed_by_the_duplicate(webhooks: Installation) -> None:
    flow_id = webhooks.flow(KEYED)
    stored = new_id()
    store = IdempotencyStore(webhooks.database)
    now_ms = webhooks.clock.now_ms()
    key = key_of(flow_id, "hook", "lost")
    await store.insert_or_find([(key, stored)], now_ms=now_ms, expires_at_ms=now_ms + 1000_000)
    assert await post(webhooks, flow_id, "lost") == str(stored)
    assert [request.run_id for request in await webhooks.published(flow_id)] == [stored.bytes]
    await published_mark(webhooks, flow_id)


async def test_a_thousand_keyed_events_cost_few_statements(webhooks: Installation) -> None:
    flow_id = webhooks.flow(KEYED)
    with failpoints.armed("webhooks.never=sleep:0") as reached:
        runs = await asyncio.gather(*(post(webhooks, flow_id, f"k{n % 500}") for n in range(1000)))
    assert len(set(runs)) == 500
    assert reached["webhooks.key_stored"] <= 10


async def test_an_expired_key_is_free_again(webhooks: Installation) -> None:
    flow_id = webhooks.flow(KEYED)
    store = IdempotencyStore(webhooks.database)
    key, first, second = key_of(flow_id, "hook", "k"), new_id(), new_id()

    async def find(run_id: UUID, now_ms: int) -> tuple[UUID, bool]:
        return (await store.insert_or_find([(key, run_id)], now_ms=now_ms, expires_at_ms=now_ms + 100))[key]

    assert await find(first, 1000) == (first, False)
    await store.mark_published([(key, first)])
    assert await find(second, 1099) == (first, True)
    assert await find(second, 1100) == (second, False)
    await store.mark_published([(key, first)])  # too late: the key belongs to another run now
    assert await find(first, 1101) == (second, False)
    assert await store.trim(now_ms=1199, limit=10) == 0
    assert await store.trim(now_ms=1200, limit=10) == 1
    assert await find(first, 1200) == (first, False)


async def test_unmarked_keys_are_only_published_again(webhooks: Installation) -> None:
    flow_id = webhooks.flow(KEYED)
    await post(webhooks, flow_id, "a")
    await published_mark(webhooks, flow_id)
    await webhooks.database.execute(
        "UPDATE webhooks.idempotency SET published = false WHERE flow_id = $1", UUID(flow_id)
    )
    await post(webhooks, flow_id, "a")
    requests = await webhooks.published(flow_id)
    assert len(requests) == 2
    assert len({request.run_id for request in requests}) == 1
