"""Runs as they are read: pages, filters, one run with its steps, progress, answers; each project sees its own alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from millrace.executor.v1 import run_pb2 as pb

from chassis.errors import Denied, Invalid, NotFound
from chassis.identity import acting_as
from chassis.ids import new_id, new_text_id
from tests.services.executor.running import WITHIN_S, Executor, Flow, action, code, member, said, steps
from tests.services.executor.servers import LocalServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUICK = said("it", n="{{trigger.body}}")
FAILING = code("it", "() => { throw new Error('no') }")


def sleeping(url: str) -> Any:
    """A step that waits half a minute for its second attempt: its run stays live."""
    retry = {"max_attempts": 2, "initial_interval": "9s", "jitter": 0}
    return action("call", "http.request", {"method": "POST", "url": url}, retry=retry)


async def started(executor: Executor, flow: Flow, count: int) -> list[str]:
    """So many ended runs of a flow, the newest first."""
    ids = [await executor.start(flow, number) for number in range(count)]
    for run_id in ids:
        await executor.ended(flow, run_id)
    return ids[::-1]


async def test_pages_go_through_live_and_ended_runs_together_newest_first(
    executor: Executor, server: LocalServer
) -> None:
    project_id = new_text_id()
    quick = executor.flow(QUICK, project_id=project_id)
    slow = executor.flow(sleeping(server.url(f"/fail/1/{new_text_id()}")), project_id=project_id)
    older = await started(executor, quick, 3)
    live = await executor.start(slow)
    await executor.reaches(slow, live, lambda found: bool(found.steps))
    newer = await started(executor, quick, 3)
    expected = [*newer, live, *older]

    seen: list[str] = []
    token = ""
    pages = 0
    while pages == 0 or token:
        page = await executor.page(project_id, page_size=2, page_token=token)
        seen += [run.id for run in page.runs]
        token = page.next_page_token
        pages += 1
    assert (seen, pages) == (expected, 4)
    of_live = next(run for run in (await executor.page(project_id)).runs if run.id == live)
    assert (of_live.status, of_live.HasField("finished_at")) == (pb.RUN_STATUS_RUNNING, False)


async def test_runs_that_begin_while_a_person_turns_pages_move_nothing(executor: Executor) -> None:
    flow = executor.flow(QUICK)
    ids = await started(executor, flow, 4)
    first = await executor.page(flow.project_id, page_size=2)
    await started(executor, flow, 2)
    second = await executor.page(flow.project_id, page_size=2, page_token=first.next_page_token)
    assert [run.id for run in (*first.runs, *second.runs)] == ids
    assert second.next_page_token == ""


async def test_filters_by_flow_and_by_state(executor: Executor, server: LocalServer) -> None:
    project_id = new_text_id()
    good = executor.flow(QUICK, project_id=project_id)
    bad = executor.flow(FAILING, project_id=project_id)
    slow = executor.flow(sleeping(server.url(f"/fail/1/{new_text_id()}")), project_id=project_id)
    (of_good,), (of_bad,) = await started(executor, good, 1), await started(executor, bad, 1)
    of_slow = await executor.start(slow)
    await executor.reaches(slow, of_slow, lambda found: bool(found.steps))

    async def ids(**asked: Any) -> list[str]:
        return [run.id for run in (await executor.page(project_id, **asked)).runs]

    assert await ids() == [of_slow, of_bad, of_good]
    assert await ids(flow_id=bad.flow_id) == [of_bad]
    assert await ids(statuses=[pb.RUN_STATUS_FAILED]) == [of_bad]
    assert await ids(statuses=[pb.RUN_STATUS_RUNNING, pb.RUN_STATUS_SUCCEEDED]) == [of_slow, of_good]
    assert await ids(flow_id=good.flow_id, statuses=[pb.RUN_STATUS_FAILED]) == []
    (failed,) = (await executor.page(project_id, statuses=[pb.RUN_STATUS_FAILED])).runs
    assert (failed.error.step_id, failed.error.kind) == ("it", "CODE_THREW"), "the list tells why"


async def test_a_page_token_is_good_for_its_own_list_alone(executor: Executor) -> None:
    flow = executor.flow(QUICK)
    await started(executor, flow, 3)
    token = (await executor.page(flow.project_id, page_size=1)).next_page_token
    for asked in ({"flow_id": flow.flow_id}, {"statuses": [pb.RUN_STATUS_FAILED]}):
        with pytest.raises(Invalid) as refused:
            await executor.page(flow.project_id, page_token=token, **asked)
        assert refused.value.reason == "PAGE_TOKEN_INVALID"
    with pytest.raises(Invalid):
        await executor.page(new_text_id(), page_token=token)


async def test_a_foreign_project_sees_nothing(executor: Executor) -> None:
    flow = executor.flow(QUICK)
    (run_id,) = await started(executor, flow, 1)
    stranger = new_text_id()
    assert list((await executor.page(stranger)).runs) == []
    assert list((await executor.page(stranger, flow_id=flow.flow_id)).runs) == []
    with pytest.raises(NotFound) as refused:
        await executor.get(stranger, run_id)
    assert refused.value.message == f"There is no run {run_id} in this project."
    with pytest.raises(NotFound):
        await executor.get(flow.project_id, new_text_id())


async def test_answers_are_for_services_alone(executor: Executor) -> None:
    with acting_as(member(new_text_id())), pytest.raises(Denied):
        await executor.runs(new_text_id()).AwaitAnswers(pb.AwaitAnswersRequest(run_ids=[new_id().bytes]))


async def test_a_run_under_way_tells_its_steps_as_far_as_they_are_durable(
    executor: Executor, server: LocalServer
) -> None:
    flow = executor.flow(said("before", n="1"), sleeping(server.url(f"/fail/1/{new_text_id()}")), said("after", n="2"))
    run_id = await executor.start(flow)
    waits = pb.STEP_STATUS_RETRYING
    found = await executor.reaches(flow, run_id, lambda it: "call" in steps(it) and steps(it)["call"].status == waits)
    assert [(step.step_id, step.status) for step in found.steps] == [
        ("before", pb.STEP_STATUS_SUCCEEDED),
        ("call", waits),
    ]
    assert steps(found)["call"].error.message.endswith("answered with status 500.")
    assert found.run.status == pb.RUN_STATUS_RUNNING


# Answers


ANSWERING = {
    "id": "reply",
    "kind": "respond",
    "status": 202,
    "headers": {"X-Flow": "a"},
    "body": {"got": "{{trigger.body}}"},
}


async def test_an_answer_is_delivered_to_the_replica_that_waits(executor: Executor) -> None:
    flow = executor.flow(ANSWERING, said("after", n="1"))
    request = executor.request(flow, 7, reply_to=f"unix:{executor.neighbours.home}/webhooks.sock")
    await executor.publish(request)
    async with asyncio.timeout(WITHIN_S):
        while request.run_id not in executor.neighbours.webhooks.answers:
            await asyncio.sleep(0.01)
    answer = executor.neighbours.webhooks.answers[request.run_id]
    assert (answer.status, answer.body) == (202, b'{"got":7}')
    assert {header.name: header.value for header in answer.headers} == {
        "x-flow": "a",
        "content-type": "application/json",
    }
    journal = await executor.journal(str(UUID(bytes=request.run_id)))
    assert b"reply" in journal, "it was durable before it left (I5)"


async def test_an_answer_that_nobody_brought_can_be_asked_for(executor: Executor) -> None:
    flow = executor.flow(ANSWERING)
    silent = executor.flow(said("it", n="1"))
    answered, without = executor.request(flow, 7), executor.request(silent)
    asking = executor.internal.AwaitAnswers(
        pb.AwaitAnswersRequest(run_ids=[answered.run_id, new_id().bytes], timeout_ms=20_000)
    )
    await executor.publish(answered, without)
    (found,) = (await asking).answers
    assert (found.run_id, found.status, found.body) == (answered.run_id, 202, b'{"got":7}')
    assert dict(zip(found.headers[::2], found.headers[1::2], strict=True))["x-flow"] == "a"
    none = await executor.internal.AwaitAnswers(pb.AwaitAnswersRequest(run_ids=[new_id().bytes], timeout_ms=0))
    assert list(none.answers) == []


async def test_a_run_that_could_not_run_at_all_answers_so_whoever_asks(executor: Executor) -> None:
    """Its caller waited for nothing until the time-out, and was told that the run goes on."""
    gone = replace(executor.flow(ANSWERING), version_id=new_text_id())
    request = executor.request(gone, 7)
    await executor.publish(request)
    found = await executor.internal.AwaitAnswers(pb.AwaitAnswersRequest(run_ids=[request.run_id], timeout_ms=20_000))
    assert [(one.status, json.loads(one.body)["error"]["kind"]) for one in found.answers] == [
        (500, "VERSION_NOT_RUNNABLE")
    ]


async def test_a_run_that_breaks_answers_at_once(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("services.executor.driver.driver.Driver._run_code", breaks)
    request = executor.request(executor.flow(code("it", "() => 1"), ANSWERING))
    await executor.publish(request)
    found = await executor.internal.AwaitAnswers(pb.AwaitAnswersRequest(run_ids=[request.run_id], timeout_ms=20_000))
    assert [(one.status, json.loads(one.body)["error"]["kind"]) for one in found.answers] == [(500, "INTERNAL_ERROR")]


async def test_answers_too_large_for_one_message_are_told_in_several(executor: Executor) -> None:
    large = {"id": "reply", "kind": "respond", "body": "{{big}}"}
    flow = executor.flow(code("big", "() => 'x'.repeat(4 * 1024 * 1024)"), large)
    wanted = [await executor.start(flow) for _ in range(3)]
    for run_id in wanted:
        await executor.ended(flow, run_id)
    missing = {UUID(run_id).bytes for run_id in wanted}
    while missing:
        asked = pb.AwaitAnswersRequest(run_ids=sorted(missing), timeout_ms=0)
        answers = (await executor.internal.AwaitAnswers(asked)).answers
        assert sum(len(answer.body) for answer in answers) < 8 * 1024 * 1024
        missing -= {answer.run_id for answer in answers}


# Progress


@asynccontextmanager
async def watching(executor: Executor, flow: Flow, **asked: str) -> AsyncIterator[Any]:
    """Somebody who watches; from the beginning of the block nothing is missed."""
    with acting_as(member(flow.project_id)):
        stream = executor.runs(flow.project_id).WatchRuns(pb.WatchRunsRequest(**asked))
    try:
        async with asyncio.timeout(WITHIN_S):
            first = await stream.read()
            assert (list(first.progress), first.dropped) == ([], 0)
            await asyncio.sleep(0)
            yield stream
    finally:
        stream.cancel()


async def told(stream: Any, run_id: str) -> list[pb.RunProgress]:
    """What is told of a run until its end."""
    found: list[pb.RunProgress] = []
    async with asyncio.timeout(WITHIN_S):
        while not found or not found[-1].run.HasField("finished_at"):
            found += [progress for progress in (await stream.read()).progress if progress.run.id == run_id]
    return found


async def test_progress_tells_what_is_durable(executor: Executor, server: LocalServer) -> None:
    call = {"method": "POST", "url": server.url("/")}
    flow = executor.flow(said("first", n="1"), action("call", "http.request", call), code("last", "() => 1"))
    async with watching(executor, flow) as stream:
        await wait_marked(executor, flow)
        run_id = await executor.start(flow)
        found = await told(stream, run_id)
    statuses = [progress.run.status for progress in found]
    assert statuses[-1] == pb.RUN_STATUS_SUCCEEDED
    last = {step.step_id: step for progress in found for step in progress.steps}
    assert {step_id: step.status for step_id, step in last.items()} == dict.fromkeys(
        ("first", "call", "last"), pb.STEP_STATUS_SUCCEEDED
    )
    assert not any(step.input or step.output for step in last.values()), "documents stay at home"
    of_call = [step.status for progress in found for step in progress.steps if step.step_id == "call"]
    assert of_call[0] == pb.STEP_STATUS_RUNNING, "its start was durable before the call (I4)"


async def wait_marked(executor: Executor, flow: Flow) -> None:
    """Return when the executor knows that somebody watches: it believes for 2 s what it knew before."""
    probe = await executor.run(flow)
    assert probe.run.id
    await asyncio.sleep(0.05)


async def test_a_watcher_of_one_flow_or_run_hears_of_no_other(executor: Executor) -> None:
    project_id = new_text_id()
    one, other = executor.flow(QUICK, project_id=project_id), executor.flow(QUICK, project_id=project_id)
    async with watching(executor, one, flow_id=one.flow_id) as stream:
        await wait_marked(executor, other)
        await executor.run(other)
        run_id = await executor.start(one)
        await executor.start(other)
        found = await told(stream, run_id)
        assert {progress.run.flow_id for progress in found} == {one.flow_id}


async def test_a_stranger_hears_nothing(executor: Executor) -> None:
    flow, foreign = executor.flow(QUICK), executor.flow(QUICK)
    async with watching(executor, foreign) as stream:
        await wait_marked(executor, foreign)
        await executor.run(flow)
        run_id = await executor.start(foreign)
        heard = []
        async with asyncio.timeout(WITHIN_S):
            while run_id not in heard:
                heard += [progress.run.id for progress in (await stream.read()).progress]
        assert {(await executor.get(foreign.project_id, one)).run.flow_id for one in heard} == {foreign.flow_id}


async def test_a_slow_reader_loses_the_oldest_and_is_told_so(executor: Executor) -> None:
    flow = executor.flow(QUICK)
    channel = f"runs:{flow.project_id}"
    async with watching(executor, flow) as stream:
        for number in range(20_000):  # far more than any buffer between holds
            run = pb.Run(id=str(number), flow_id=flow.flow_id)
            await executor.cache.publish(
                channel, pb.WatchRunsResponse(progress=[pb.RunProgress(run=run)]).SerializeToString()
            )
        dropped, last = 0, ""
        while last != "19999":
            message = await stream.read()
            dropped += message.dropped
            last = message.progress[-1].run.id if message.progress else last
    assert dropped > 0
