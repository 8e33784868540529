"""Runs that fail: each error names step, item, attempt and kind, and says what a person can act on.

And events that no run can be made of: each harms itself alone.
"""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from millrace.executor.v1 import run_pb2 as pb

from chassis.ids import new_id, new_text_id
from chassis.log import OutRecord
from tests.services.executor.running import Executor, Flow, Step, action, code, output, said, steps
from tests.services.executor.servers import LocalServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

READS_THE_TRIGGER = said("it", x="{{trigger.body}}")


def failure(found: pb.GetRunResponse) -> tuple[str, tuple[int, ...], int, str, str]:
    """Step, loop indices, attempt, kind and message of a run's error."""
    error = found.run.error
    return error.step_id, tuple(error.indices), error.attempt, error.kind, error.message


async def fails(executor: Executor, step: Step, payload: object = None) -> tuple[str, str]:
    """Kind and message of what makes a run of one step, `it`, fail."""
    found = await executor.run(executor.flow(step), payload)
    assert found.run.status == pb.RUN_STATUS_FAILED, found
    assert failure(found)[:3] == ("it", (), 1)
    assert steps(found)["it"].error == found.run.error
    return failure(found)[3:]


def get(url: str, **rest: Any) -> Step:
    return action("it", "http.request", {"method": "GET", "url": url}, **rest)


# Code and expressions


async def test_code_that_throws_names_the_place_in_the_authors_source(executor: Executor) -> None:
    source = "() => {\n  const order = null\n  return order.id\n}"
    assert await fails(executor, code("it", source)) == (
        "CODE_THREW",
        "TypeError: Cannot read properties of null (reading 'id') (line 3, column 16)",
    )


async def test_what_code_printed_before_it_failed_is_kept(executor: Executor) -> None:
    found = await executor.run(executor.flow(code("it", "() => { console.log('so far'); throw Error('no') }")))
    assert list(steps(found)["it"].console) == ["so far"]


async def test_text_cut_through_an_emoji_harms_no_run(executor: Executor) -> None:
    flow = executor.flow(code("it", "({ t }) => { console.log(t[0]); return t[0] }", input={"t": "{{trigger.body}}"}))
    found = await executor.run(flow, "😀")
    assert found.run.status == pb.RUN_STATUS_SUCCEEDED, found
    assert (output(found, "it"), list(steps(found)["it"].console)) == ("\ufffd", ["\ufffd"])


async def test_code_that_does_not_parse_names_the_line(executor: Executor) -> None:
    kind, message = await fails(executor, code("it", "() => {\n  return (\n}"))
    assert kind == "CODE_THREW"
    assert message.startswith("Syntax error")
    assert "(line " in message


async def test_an_endless_loop_is_stopped_at_the_steps_own_limit(executor: Executor) -> None:
    endless = code("it", "() => { for (;;) {} }", timeout="300ms")
    assert await fails(executor, endless) == ("STEP_TIMED_OUT", "The step did not end within 0.3 s.")


async def test_code_that_eats_memory_has_a_state_of_its_own(executor: Executor) -> None:
    eats = "() => { const all = []; for (;;) all.push(new Array(1e5).fill(Math.random())) }"
    found = await executor.run(executor.flow(code("it", eats)))
    assert found.run.status == pb.RUN_STATUS_MEMORY_EXCEEDED
    assert failure(found)[:4] == ("it", (), 1, "MEMORY_EXCEEDED")
    assert "MiB" in failure(found)[4]


async def test_an_expression_that_throws_is_quoted(executor: Executor) -> None:
    kind, message = await fails(executor, said("it", x="{{trigger.body.a + 1}}", y="{{ JSON.parse('{') }}"))
    assert kind == "EXPRESSION_FAILED"
    assert message.startswith("{{ JSON.parse('{') }} failed: SyntaxError: ")


async def test_an_endless_expression_is_stopped(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.executor.driver.driver.EXPRESSION_TIMEOUT_MS", 300)
    assert await fails(executor, said("it", x="{{ (() => { for (;;) {} })() }}")) == (
        "EXPRESSION_FAILED",
        "The expressions of this step did not end within 0.3 s.",
    )


# Actions


async def test_a_call_that_takes_too_long(executor: Executor, server: LocalServer) -> None:
    slow = get(server.url("/slow"), timeout="300ms")
    assert await fails(executor, slow) == ("STEP_TIMED_OUT", "The step did not end within 0.3 s.")


async def test_a_call_that_goes_on_failing_names_the_last_attempt(executor: Executor, server: LocalServer) -> None:
    url = server.url(f"/fail/9/{new_text_id()}")
    call = {"method": "POST", "url": url}
    retry = {"max_attempts": 2, "initial_interval": "10ms"}
    found = await executor.run(executor.flow(action("it", "http.request", call, retry=retry)))
    assert found.run.status == pb.RUN_STATUS_FAILED
    assert failure(found) == ("it", (), 2, "HTTP_STATUS", f"POST {url} answered with status 500.")


async def test_input_that_an_action_does_not_take_names_the_field(executor: Executor) -> None:
    kind, message = await fails(executor, get("{{trigger.body.url}}"), {"url": 7})
    assert kind == "INPUT_INVALID"
    assert "`url`" in message


async def test_an_address_that_flows_may_not_call(executor: Executor) -> None:
    kind, message = await fails(executor, get("http://10.0.0.1/"))
    assert kind == "EGRESS_BLOCKED"
    assert "10.0.0.1" in message


async def test_a_failure_in_a_loop_names_the_item(executor: Executor) -> None:
    refuse = code("it", "({n}) => { if (n === 3) throw new Error('three'); return n }", input={"n": "{{each.item}}"})
    flow = executor.flow({"id": "each", "kind": "loop", "items": "{{trigger.body}}", "steps": [refuse]})
    found = await executor.run(flow, [1, 2, 3, 4])
    assert found.run.status == pb.RUN_STATUS_FAILED
    assert failure(found)[:4] == ("it", (2,), 1, "CODE_THREW")


@pytest.mark.parametrize("kind_of_step", ["action", "code", "store"])
async def test_a_connection_that_is_gone_fails_the_step_before_anything_is_called(
    executor: Executor, server: LocalServer, kind_of_step: str
) -> None:
    """The step was called with null in the place of the secret."""
    secret = "{{connections.crm.secret}}"
    step = {
        "action": action("it", "http.request", {"method": "POST", "url": server.url("/"), "body": secret}),
        "code": code("it", "({s}) => s", input={"s": secret}),
        "store": action("it", "store.put", {"key": "k", "value": secret}),
    }[kind_of_step]
    before = len(server.arrivals)
    assert await fails(executor, step) == (
        "CONNECTION_NOT_FOUND",
        "There is no connection `crm` in this project. Create it, or let the step use another one.",
    )
    assert len(server.arrivals) == before


async def test_a_store_key_that_no_database_can_hold_fails_its_step_alone(executor: Executor) -> None:
    """It must not come as far as the flush, which all runs share."""
    put = action("it", "store.put", {"key": "{{trigger.body}}", "value": 1})
    assert await fails(executor, put, "a\x00b") == ("INPUT_INVALID", "A key cannot contain the character NUL.")


# Events that no run can be made of


async def test_a_version_that_does_not_exist(executor: Executor) -> None:
    flow = Flow(new_text_id(), new_text_id(), new_text_id())
    found = await executor.run(flow)
    assert found.run.status == pb.RUN_STATUS_INTERNAL_ERROR
    assert failure(found)[3] == "VERSION_NOT_RUNNABLE"
    assert flow.version_id in failure(found)[4]
    assert json.loads(found.trigger_output) == {"body": None}, "its payload is kept all the same"


@pytest.mark.parametrize(
    ("step", "word"),
    [
        (action("it", "fax.send", {}), "fax"),
        (action("it", "http.fly", {}), "fly"),
        (said("it", x="{{ 'never closed }}"), "never closed"),
        ({**READS_THE_TRIGGER, "timeout": "soon"}, "soon"),
        ({"id": "it", "kind": "dance"}, "dance"),
    ],
)
async def test_a_version_that_this_release_cannot_run_says_why(executor: Executor, step: Step, word: str) -> None:
    """One such version in the log ended the executor, again after every restart."""
    found = await executor.run(executor.flow(step))
    assert found.run.status == pb.RUN_STATUS_INTERNAL_ERROR
    assert failure(found)[3] == "VERSION_NOT_RUNNABLE"
    assert word in failure(found)[4]


async def test_a_payload_whose_file_is_gone(executor: Executor) -> None:
    file_id = new_text_id()
    found = await executor.run(executor.flow(READS_THE_TRIGGER), payload_file_id=file_id)
    assert found.run.status == pb.RUN_STATUS_INTERNAL_ERROR
    assert failure(found)[3] == "PAYLOAD_MISSING"
    assert file_id in failure(found)[4]


@pytest.mark.parametrize("payload", [b"\x09nonsense", b"\x00{", b"\x01not zstd"])
async def test_a_payload_that_cannot_be_read_ends_its_run_alone(executor: Executor, payload: bytes) -> None:
    """One such event in the log ended the executor, again after every restart."""
    flow = executor.flow(READS_THE_TRIGGER)
    request = executor.request(flow, run_id=(run_id := new_id()).bytes)
    request.payload = payload
    await executor.publish(request)
    found = await executor.ended(flow, str(UUID(bytes=run_id.bytes)))
    assert found.run.status in (pb.RUN_STATUS_INTERNAL_ERROR, pb.RUN_STATUS_FAILED)
    assert found.run.error.kind in ("INTERNAL_ERROR", "DOCUMENT_UNREADABLE")
    assert found.run.error.message


async def test_a_record_that_cannot_be_read_goes_to_the_dead_letters(executor: Executor) -> None:
    await executor.log.publish("executions", [OutRecord(b"", b"\xff\xff no batch")])
    assert (b"unreadable", b"\xff\xff no batch") in await executor.dead_letters(1)
    found = await executor.run(executor.flow(READS_THE_TRIGGER))
    assert found.run.status == pb.RUN_STATUS_SUCCEEDED, "what lies behind it is read"
