"""What a published execution becomes: its run, its journal, the outcome of every kind of step."""

from __future__ import annotations

import json

import pytest
from millrace.executor.v1 import run_pb2 as pb

from chassis.documents import pack
from chassis.ids import new_text_id
from tests.services.executor.running import Executor, action, code, output, said, steps
from tests.services.executor.servers import LocalServer

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_published_execution_becomes_a_run_with_its_journal(executor: Executor) -> None:
    flow = executor.flow(
        code("add", "({n}) => { console.log('adding'); return n + 1 }", input={"n": "{{trigger.body.n}}"}),
        said("text", said="It is {{add}}"),
    )
    found = await executor.run(flow, {"n": 41})
    run = found.run
    assert (run.status, run.flow_id, run.version_id, run.trigger_id) == (
        pb.RUN_STATUS_SUCCEEDED,
        flow.flow_id,
        flow.version_id,
        "hook",
    )
    assert (run.steps_finished, run.test, run.HasField("error")) == (2, False, False)
    assert run.started_at.ToMilliseconds() <= run.finished_at.ToMilliseconds()
    assert json.loads(found.trigger_output) == {"body": {"n": 41}}
    add, text = found.steps
    assert (add.step_id, add.status, add.attempt) == ("add", pb.STEP_STATUS_SUCCEEDED, 1)
    assert (json.loads(add.input), json.loads(add.output), list(add.console)) == ({"n": 41}, 42, ["adding"])
    assert (json.loads(text.output), text.idempotency_key) == ({"said": "It is 42"}, "")
    row = await executor.database.fetchrow("SELECT status, steps_finished FROM executor.run WHERE run_id = $1", run.id)
    assert tuple(row or ()) == (5, 2)
    assert await executor.database.fetchval("SELECT count(*) FROM executor.run_live WHERE run_id = $1", run.id) == 0


async def test_a_router_chooses_a_loop_collects_and_an_answer_is_given(executor: Executor) -> None:
    big = [[{"left": "{{trigger.body.items.length}}", "op": "greater_than", "right": 2}]]
    flow = executor.flow(
        {
            "id": "way",
            "kind": "router",
            "branches": [
                {"name": "big", "when": big, "steps": [said("large", size="big")]},
                {"name": "else", "fallback": True, "steps": [said("small", size="small")]},
            ],
        },
        {
            "id": "each",
            "kind": "loop",
            "items": "{{trigger.body.items}}",
            "concurrency": 2,
            "collect": "{{double}}",
            "steps": [code("double", "({n}) => n * 2", input={"n": "{{each.item}}"})],
        },
        {
            "id": "reply",
            "kind": "respond",
            "status": 201,
            "headers": {"x-size": "{{large.size}}"},
            "body": {"doubled": "{{each.items}}"},
        },
    )
    found = await executor.run(flow, {"items": [1, 2, 3]})
    assert found.run.status == pb.RUN_STATUS_SUCCEEDED
    assert output(found, "large") == {"size": "big"}
    assert "small" not in steps(found)
    assert output(found, "each")["items"] == [2, 4, 6]
    assert sorted(tuple(step.indices) for step in found.steps if step.step_id == "double") == [(0,), (1,), (2,)]
    assert output(found, "reply") == {"status": 201, "headers": {"x-size": "big"}, "body": {"doubled": [2, 4, 6]}}


async def test_the_store_counts_every_run_once(executor: Executor) -> None:
    flow = executor.flow(
        action("count", "store.increment", {"key": "total"}),
        action("own", "store.put", {"key": "total", "value": 7, "scope": "flow"}),
    )
    ids = [await executor.start(flow) for _ in range(20)]
    counted = [output(await executor.ended(flow, run_id), "count")["value"] for run_id in ids]
    assert sorted(counted) == list(range(1, 21))


async def test_a_value_with_characters_that_postgres_refuses_in_text_is_kept(executor: Executor) -> None:
    """Documents are bytes first: U+0000 is JSON."""
    flow = executor.flow(
        action("put", "store.put", {"key": "odd", "value": "{{trigger.body}}"}),
        action("back", "store.get", {"key": "odd"}),
    )
    found = await executor.run(flow, "a\x00b")
    assert output(found, "back")["value"] == "a\x00b"


async def test_an_effect_carries_the_key_that_its_step_tells(executor: Executor, server: LocalServer) -> None:
    flow = executor.flow(action("tell", "http.request", {"method": "POST", "url": server.url("/"), "body": "hello"}))
    found = await executor.run(flow)
    key = steps(found)["tell"].idempotency_key
    assert key
    assert output(found, "tell")["body"] == {"key": key, "body": '"hello"'}


async def test_a_failing_call_is_tried_again_with_the_same_input_until_it_succeeds(
    executor: Executor, server: LocalServer
) -> None:
    path = f"/fail/2/{new_text_id()}"
    call = {"method": "POST", "url": server.url(path), "body": {"n": 1}}
    retry = {"max_attempts": 3, "initial_interval": "100ms", "backoff": 2, "jitter": 0}
    found = await executor.run(executor.flow(action("it", "http.request", call, retry=retry)))
    assert found.run.status == pb.RUN_STATUS_SUCCEEDED
    step = steps(found)["it"]
    assert (step.status, step.attempt, output(found, "it")["body"]) == (pb.STEP_STATUS_SUCCEEDED, 3, {"seen": 3})
    assert step.error.attempt == 2, "what went wrong before is still told"
    arrivals = [arrival for arrival in server.arrivals if arrival.target == path]
    assert {arrival.body for arrival in arrivals} == {b'{"n":1}'}
    assert len({arrival.headers["idempotency-key"] for arrival in arrivals}) == 3, "a known failure ends its key (I4)"
    assert step.finished_at.ToMilliseconds() - step.started_at.ToMilliseconds() >= 300, "100 ms, then 200 ms"


async def test_a_step_may_let_the_flow_go_on_after_its_failure(executor: Executor) -> None:
    flow = executor.flow(
        code("it", "() => { throw new Error('no luck') }", on_error="continue"),
        said("after", why="{{it.error.message}}", kind="{{it.error.kind}}", attempt="{{it.error.attempt}}"),
    )
    found = await executor.run(flow)
    assert found.run.status == pb.RUN_STATUS_SUCCEEDED
    assert output(found, "after")["kind"] == "CODE_THREW"
    assert output(found, "after")["attempt"] == 1
    assert "no luck" in output(found, "after")["why"]
    assert steps(found)["it"].status == pb.STEP_STATUS_FAILED
    assert not found.run.HasField("error")


async def test_a_payload_in_a_file_is_read_from_there(executor: Executor) -> None:
    flow = executor.flow(code("length", "({text}) => text.length", input={"text": "{{trigger.body}}"}))
    content = pack(json.dumps({"body": "x" * 400_000}).encode())
    file_id = await executor.upload(flow.project_id, content)
    found = await executor.run(flow, payload_file_id=file_id)
    assert output(found, "length") == 400_000


async def test_a_simulation_is_marked_as_a_test(executor: Executor) -> None:
    found = await executor.run(executor.flow(said("where", environment="{{run.environment}}")), test=True)
    assert found.run.test
    assert output(found, "where") == {"environment": "test"}
