"""The database or the log away: what can be kept is kept, the rest is told 503, and it goes on by itself."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from millrace.events.v1.events_pb2 import ExecutionBatch

from chassis.ids import bytes_of
from chassis.log import EARLIEST, Log
from tests.backings.kafka import KafkaBacking
from tests.backings.postgres import PostgresBacking
from tests.services.webhooks.neighbours import Installation, header, installation, problem

KEYED = {"input": {"idempotency_header": "X-Event-Id"}}
KEY = {"x-event-id": "e1"}


async def accepted_again(webhooks: Installation, flow_id: str, **headers: str) -> str:
    """Repeat as a sender does until the event is taken; return the run id."""
    async with asyncio.timeout(20):
        while (answer := await webhooks.post(flow_id, headers=headers)).status != 200:
            assert answer.status == 503
            await asyncio.sleep(0.1)
    run_id: str = json.loads(answer.body)["run_id"]
    return run_id


async def run_ids(log: Log, flow_id: str, count: int) -> set[bytes]:
    """The run ids of a flow's events in the log, once there are that many."""

    async def from_the_start(partitions: frozenset[int]) -> Mapping[int, int]:
        return dict.fromkeys(partitions, EARLIEST)

    found: set[bytes] = set()
    async with log.consumer("executions", None, from_the_start) as consumer, asyncio.timeout(20):
        while len(found) < count:
            for record in await consumer.batch(100):
                requests = ExecutionBatch.FromString(record.value).requests
                found |= {request.run_id for request in requests if request.flow_id == flow_id}
    return found


async def test_with_the_log_in_a_database_that_is_away_nothing_is_accepted_and_nothing_lost(
    tmp_path: Path, postgres: PostgresBacking, database_url: str
) -> None:
    async with installation(tmp_path, database_url) as webhooks:
        plain, keyed = webhooks.flow(), webhooks.flow(KEYED)
        before = {await accepted_again(webhooks, plain)}
        await accepted_again(webhooks, keyed, **KEY)
        postgres.kill()
        for flow_id, headers in ((plain, {}), (keyed, KEY)):
            answer = await webhooks.post(flow_id, headers=headers)
            assert answer.status == 503, answer.body
            assert header(answer, "retry-after") is not None
            assert problem(answer)["reason"] in ("LOG_AWAY", "DATABASE_AWAY")
        await asyncio.to_thread(postgres.start)
        after = {await accepted_again(webhooks, plain)}
        assert await accepted_again(webhooks, keyed, **KEY)
        stored = {request.run_id for request in await webhooks.published(plain)}
        assert {bytes_of(run_id) for run_id in before | after} <= stored
        assert len({request.run_id for request in await webhooks.published(keyed)}) == 1
        await webhooks.change(plain, enabled=False)  # changes are heard of again
        assert (await webhooks.post(plain)).status == 409


async def test_with_kafka_events_without_a_key_go_on_being_accepted_while_the_database_is_away(
    tmp_path: Path, postgres: PostgresBacking, database_url: str, kafka: KafkaBacking
) -> None:
    async with installation(tmp_path, database_url, kafka=kafka.bootstrap) as webhooks:
        plain, keyed = webhooks.flow(), webhooks.flow(KEYED)
        accepted = {await accepted_again(webhooks, plain)}
        first = await accepted_again(webhooks, keyed, **KEY)
        postgres.kill()
        for _ in range(3):
            answer = await webhooks.post(plain)
            assert answer.status == 200, answer.body
            accepted.add(json.loads(answer.body)["run_id"])
        refused = await webhooks.post(keyed, headers=KEY)
        assert (refused.status, problem(refused)["reason"]) == (503, "DATABASE_AWAY")
        assert header(refused, "retry-after")
        assert (await webhooks.post(keyed)).status == 200  # no key, no question
        await asyncio.to_thread(postgres.start)
        assert await accepted_again(webhooks, keyed, **KEY) == first
        assert await run_ids(webhooks.log, plain, 4) == {bytes_of(run_id) for run_id in accepted}


async def test_a_thousand_at_once_on_kafka_are_few_records(
    tmp_path: Path, database_url: str, kafka: KafkaBacking
) -> None:
    async with installation(tmp_path, database_url, kafka=kafka.bootstrap) as webhooks:
        flow_id = webhooks.flow()
        await accepted_again(webhooks, flow_id)
        before = sum(bounds.next for bounds in (await webhooks.log.bounds("executions")).values())
        answers = await asyncio.gather(*(webhooks.post(flow_id, b'{"n":%d}' % n) for n in range(1000)))
        assert {answer.status for answer in answers} == {200}
        records = sum(bounds.next for bounds in (await webhooks.log.bounds("executions")).values()) - before
        assert records <= 12
        assert len(await run_ids(webhooks.log, flow_id, 1001)) == 1001


@pytest.fixture(autouse=True)
def started_again(postgres: PostgresBacking) -> None:
    """A test that failed half-way may have left it killed."""
    postgres.start()
