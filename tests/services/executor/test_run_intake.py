"""From the log to runs: room, second deliveries, events that come too late, and an executor that starts anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from millrace.events.v1.events_pb2 import ExecutionBatch
from millrace.executor.v1 import run_pb2 as pb

from chassis.ids import new_id, new_text_id
from chassis.log import OutRecord
from tests.services.executor.running import (
    WITHIN_S,
    Executor,
    Neighbours,
    action,
    output,
    running_executor,
    said,
    steps,
)
from tests.services.executor.servers import LocalServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUEUED = "SELECT count(*) FROM executor.run_live WHERE status = 1 AND project_id = $1"


@asynccontextmanager
async def crowded(home: Path, url: str) -> AsyncIterator[Executor]:
    """An executor with room for three runs."""
    async with running_executor(Neighbours(home, url), max_active_runs=3) as executor:
        yield executor


def held_calls(server: LocalServer) -> list[str]:
    """The calls that the server keeps waiting, or kept."""
    return [arrival.target for arrival in server.arrivals if arrival.target == "/hold"]


async def queue_holds(executor: Executor, project_id: str, runs: int) -> None:
    async with asyncio.timeout(WITHIN_S):
        while await executor.database.fetchval(QUEUED, project_id) < runs:
            await asyncio.sleep(0.01)


async def until(so: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not so():
            await asyncio.sleep(0.01)


async def test_runs_beyond_the_room_are_queued_and_all_end(
    tmp_path: Path, database_url: str, server: LocalServer
) -> None:
    async with crowded(tmp_path, database_url) as executor:
        held = action("it", "http.request", {"method": "GET", "url": server.url("/hold")})
        flood, other = executor.flow(held), executor.flow(held)
        ids = [await executor.start(flood) for _ in range(12)]
        await queue_holds(executor, flood.project_id, 9)
        await until(lambda: len(held_calls(server)) >= 3)  # now there is no room, whoever came first
        other_id = await executor.start(other)
        await queue_holds(executor, other.project_id, 1)
        queued = await executor.get(other.project_id, other_id)
        assert (queued.run.status, queued.run.HasField("started_at")) == (pb.RUN_STATUS_QUEUED, False)
        assert len(held_calls(server)) == 3, "no more at once"
        server.open.set()
        for run_id in ids:
            assert (await executor.ended(flood, run_id)).run.status == pb.RUN_STATUS_SUCCEEDED
        ended = await executor.ended(other, other_id)
        assert ended.run.status == pb.RUN_STATUS_SUCCEEDED
        finished = [(await executor.get(flood.project_id, run_id)).run.finished_at.ToMilliseconds() for run_id in ids]
        assert ended.run.finished_at.ToMilliseconds() < max(finished), "one project's flood holds up nobody"


async def test_a_second_delivery_becomes_no_second_run(executor: Executor) -> None:
    flow = executor.flow(action("count", "store.increment", {"key": "n"}))
    request = executor.request(flow)
    await executor.publish(request, request)
    await executor.publish(request)
    run_id = str(UUID(bytes=request.run_id))
    await executor.ended(flow, run_id)
    await executor.publish(request)
    after = await executor.run(flow)
    assert output(after, "count")["value"] == 2
    assert [run.id for run in (await executor.page(flow.project_id)).runs] == [after.run.id, run_id]


async def test_second_deliveries_of_a_queued_run_collapse_in_one_flush(tmp_path: Path, database_url: str) -> None:
    """Two copies of an event that found no room came into one flush, which the database refused."""
    async with running_executor(Neighbours(tmp_path, database_url), max_active_runs=1) as executor:
        flow = executor.flow(action("count", "store.increment", {"key": "n"}))
        requests = [executor.request(flow) for _ in range(10)]
        record = ExecutionBatch(requests=[request for request in requests for _ in range(3)])
        await executor.log.publish("executions", [OutRecord(b"", record.SerializeToString())])
        found = [await executor.ended(flow, str(UUID(bytes=request.run_id))) for request in requests]
        assert {run.run.status for run in found} == {pb.RUN_STATUS_SUCCEEDED}
        assert sorted(output(run, "count")["value"] for run in found) == list(range(1, 11))


async def test_one_record_may_hold_many_events(executor: Executor) -> None:
    flow = executor.flow(said("it", n="{{trigger.body}}"))
    requests = [executor.request(flow, number) for number in range(50)]
    record = OutRecord(b"", ExecutionBatch(requests=requests).SerializeToString())
    await executor.log.publish("executions", [record])
    for number, request in enumerate(requests):
        assert output(await executor.ended(flow, str(UUID(bytes=request.run_id))), "it") == {"n": number}


async def test_an_event_older_than_the_oldest_partition_goes_to_the_dead_letters(executor: Executor) -> None:
    """I7: whether it was a run before can no longer be known, so it never becomes one."""
    flow = executor.flow(said("it", n="1"))
    long_ago = int((datetime.now(UTC) - timedelta(days=60)).timestamp() * 1000)
    run_id = long_ago.to_bytes(6, "big") + new_id().bytes[6:]
    request, fresh = executor.request(flow, run_id=run_id), executor.request(flow)
    record = OutRecord(b"", ExecutionBatch(requests=[request, fresh]).SerializeToString())
    await executor.log.publish("executions", [record])
    await executor.ended(flow, str(UUID(bytes=fresh.run_id)))
    (letter,) = await executor.dead_letters(1)
    assert letter[0] == b"too_old"
    assert ExecutionBatch.FromString(letter[1]).requests[0] == request, "as it came, to be looked at and replayed"
    assert not await executor.known(str(UUID(bytes=run_id)))


async def test_runs_go_on_where_they_were_when_the_executor_starts_anew(
    tmp_path: Path, database_url: str, server: LocalServer
) -> None:
    neighbours = Neighbours(tmp_path, database_url)
    path = f"/fail/1/{new_text_id()}"
    call = {"method": "POST", "url": server.url(path), "body": "{{count.value}}"}
    retry = {"max_attempts": 2, "initial_interval": "1s", "jitter": 0}
    async with running_executor(neighbours) as before:
        flow = before.flow(
            action("count", "store.increment", {"key": "n"}),
            action("call", "http.request", call, retry=retry),
            said("after", n="{{count.value}}"),
        )
        run_id = await before.start(flow)
        waits = pb.STEP_STATUS_RETRYING
        await before.reaches(flow, run_id, lambda it: "call" in steps(it) and steps(it)["call"].status == waits)
        later = before.request(flow)
    async with running_executor(neighbours) as after:
        found = await after.ended(flow, run_id)
        assert found.run.status == pb.RUN_STATUS_SUCCEEDED, found.run.error
        assert output(found, "after") == {"n": 1}, "what was finished is not done again (I3)"
        assert steps(found)["call"].attempt == 2
        assert [arrival.body for arrival in server.arrivals if arrival.target == path] == [b"1", b"1"]
        await after.publish(later)
        assert output(await after.ended(flow, str(UUID(bytes=later.run_id))), "after") == {"n": 2}


async def test_what_was_published_while_no_executor_ran_becomes_runs(tmp_path: Path, database_url: str) -> None:
    neighbours = Neighbours(tmp_path, database_url)
    async with running_executor(neighbours) as before:
        flow = before.flow(said("it", n="{{trigger.body}}"))
        await before.run(flow)
        request = before.request(flow, 7)
        neighbours.flows.away = True  # taken in, not begun: the plan is asked for and nobody answers
        unseen = before.flow(said("it", n="1"))
        held = before.request(unseen, 8)
        await before.publish(held, request)
    neighbours.flows.away = False
    async with running_executor(neighbours) as after:
        assert output(await after.ended(flow, str(UUID(bytes=request.run_id))), "it") == {"n": 7}
        assert (await after.ended(unseen, str(UUID(bytes=held.run_id)))).run.status == pb.RUN_STATUS_SUCCEEDED


async def test_runs_wait_while_flows_and_auth_are_away(executor: Executor, server: LocalServer) -> None:
    neighbours = executor.neighbours
    flow = executor.flow(
        action("it", "http.request", {"method": "POST", "url": server.url("/"), "body": "{{connections.c.secret}}"})
    )
    executor.secret(flow, "c", "a secret text")
    neighbours.flows.away = neighbours.auth.away = True
    before = neighbours.flows.calls["BatchGetVersions"]
    run_id = await executor.start(flow)
    await until(lambda: neighbours.flows.calls["BatchGetVersions"] > before)
    neighbours.flows.away = False
    found = await executor.reaches(flow, run_id, lambda it: "it" in steps(it))
    assert found.run.status == pb.RUN_STATUS_RUNNING
    neighbours.auth.away = False
    assert (await executor.ended(flow, run_id)).run.status == pb.RUN_STATUS_SUCCEEDED
