"""What a thousand events may cost, counted and not timed: commits, reads of the log, decoded payloads, tasks."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest

from chassis.documents import unpack
from chassis.log.postgres_consumer import PostgresConsumer
from services.executor import surroundings
from services.executor.postgres_store import PostgresStore
from services.executor.store import FlushBatch
from tests.services.executor.running import WITHIN_S, Executor, Flow, action, code, said

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVENTS = 1_000
ENDED = "SELECT count(*) FROM executor.run WHERE project_id = $1 AND status = 5"

PURE = (
    said("first", n="{{trigger.body.n}}"),
    code("second", "({n}) => ({n: n + 1})", input={"n": "{{trigger.body.n}}"}),
    said("third", n="{{second.n}}", all="{{trigger.body}}"),
    said("fourth", n="{{third.n * 2}}"),
    {"id": "reply", "kind": "respond", "status": 200, "body": "{{fourth}}"},
)


class Counted:
    """What happened while a thousand events became ended runs."""

    def __init__(self) -> None:
        self.flushes: list[FlushBatch] = []
        self.reads = 0
        self.decodes = 0
        self.tasks: Counter[str] = Counter()


@contextmanager
def counting(patch: pytest.MonkeyPatch) -> Iterator[Counted]:
    """Count in the parts that do it: the real ones go on working."""
    counted = Counted()
    flush, batch = PostgresStore.flush, PostgresConsumer.batch

    async def counted_flush(self: PostgresStore, batch: FlushBatch) -> set[bytes]:
        counted.flushes.append(batch)
        return await flush(self, batch)

    async def counted_batch(self: PostgresConsumer, max_records: int) -> Any:
        counted.reads += 1
        return await batch(self, max_records)

    def counted_unpack(document: bytes) -> bytes:
        counted.decodes += 1
        return unpack(document)

    def counted_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **rest: Any) -> asyncio.Task[Any]:
        counted.tasks[getattr(coroutine, "__qualname__", "?")] += 1
        return asyncio.Task(coroutine, loop=loop, **rest)

    with patch.context() as patched:
        patched.setattr(PostgresStore, "flush", counted_flush)
        patched.setattr(PostgresConsumer, "batch", counted_batch)
        patched.setattr(surroundings, "unpack", counted_unpack)
        loop = asyncio.get_running_loop()
        loop.set_task_factory(counted_task)
        try:
            yield counted
        finally:
            loop.set_task_factory(None)


async def ended(executor: Executor, flow: Flow) -> None:
    async with asyncio.timeout(WITHIN_S):
        while await executor.database.fetchval(ENDED, flow.project_id) < EVENTS:
            await asyncio.sleep(0.1)


async def a_thousand(executor: Executor, flow: Flow, patch: pytest.MonkeyPatch) -> Counted:
    """Publish a thousand events as a thousand webhooks at once do, and count until all runs have ended."""
    await executor.run(flow, {"n": 0})  # the version is compiled, the jail stands
    requests = [executor.request(flow, {"n": number}) for number in range(EVENTS - 1)]
    with counting(patch) as counted:
        publishing: list[Awaitable[None]] = [executor.publish(request) for request in requests]
        await asyncio.gather(*publishing)
        counted.tasks.clear()  # those were ours
        await ended(executor, flow)
    return counted


async def test_a_thousand_runs_of_pure_steps(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = executor.flow(*PURE)
    counted = await a_thousand(executor, flow, monkeypatch)
    busy = [batch for batch in counted.flushes if batch.runs or batch.positions]
    print(f"{len(busy)} commits, {counted.reads} reads, {counted.decodes} decodes, {counted.tasks.most_common(5)}")
    assert len(busy) <= 200, "4 commits when the machine is quiet; never one for each run"
    assert sum(len(batch.runs) for batch in busy) <= 2 * EVENTS, "one write a run, a second if it waits for a jail"
    assert counted.reads <= 200, "5 reads when the machine is quiet"
    assert counted.decodes <= EVENTS, "a payload is opened once at most"
    assert counted.tasks["Driver._carry_out"] <= EVENTS, "one task a run, none a step"
    assert counted.tasks.total() <= 1.3 * EVENTS


async def test_a_payload_that_no_step_reads_is_never_opened(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = await a_thousand(executor, executor.flow(said("it", n="1")), monkeypatch)
    assert counted.decodes == 0


async def test_a_loop_of_pure_steps_is_one_commit_and_one_task(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = [code("double", "({n}) => n * 2", input={"n": "{{each.item}}"}), said("text", n="{{double}}")]
    flow = executor.flow({"id": "each", "kind": "loop", "items": "{{trigger.body}}", "steps": body})
    await executor.run(flow, [1])
    with counting(monkeypatch) as counted:
        request = executor.request(flow, list(range(200)))
        await executor.publish(request)
        await executor.ended(flow, run_id := str(UUID(bytes=request.run_id)))
    writes = [run for batch in counted.flushes for run in batch.runs]
    print(f"{len(writes)} writes, {counted.tasks.most_common(5)}")
    assert len(writes) <= 200, "what nobody waits for is gathered: 5 writes for 400 steps when the machine is quiet"
    assert counted.decodes == 1
    assert counted.tasks["Driver._carry_out"] == 1
    found = await executor.get(flow.project_id, run_id)
    assert found.run.steps_finished == 400


async def test_every_effect_waits_for_a_commit_but_shares_it(
    executor: Executor, monkeypatch: pytest.MonkeyPatch, server: Any
) -> None:
    """A hundred runs that begin an effect each at the same moment: their starts are one commit, or few."""
    flow = executor.flow(action("tell", "http.request", {"method": "POST", "url": server.url("/")}))
    await executor.run(flow)
    with counting(monkeypatch) as counted:
        requests = [executor.request(flow) for _ in range(100)]
        await executor.publish(*requests)
        for request in requests:
            await executor.ended(flow, str(UUID(bytes=request.run_id)))
    busy = [batch for batch in counted.flushes if batch.runs]
    print(f"{len(busy)} commits for 100 effects")
    assert len(busy) <= 60, "3 commits when the machine is quiet"
    assert sum(len(batch.runs) for batch in busy) <= 300, "its start, its outcome with the end"
