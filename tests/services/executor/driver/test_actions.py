"""One call of one action: strict input, bounded time, no secrets in what leaves it, one kind of failure."""

from __future__ import annotations

import asyncio
import re
import traceback
from dataclasses import replace
from typing import Annotated, cast
from uuid import UUID

import msgspec
import pytest
from millrace_sdk import (
    ActionFailed,
    Context,
    Http,
    Input,
    Json,
    Piece,
    StoreOperation,
    Text,
    TimedOut,
    action,
    store_action,
)

from flowlang.catalogue import read_catalogue
from services.executor.driver.actions import MAX_LOG_LINES, MAX_OUTPUT_BYTES, ActionCall, Actions
from services.executor.driver.installed import INSTALLED
from services.executor.egress import Egress, EgressSettings
from tests.services.executor.servers import serving

RUN_ID = UUID("0197a000-0000-7000-8000-000000000001")
SECRET = "s3cret-of-the-shop"
NO_HTTP = cast("Http", None)


class SayInput(Input):
    text: Annotated[str, Text("Text")]


@action(title="Say", summary="Says it.", effect="pure")
async def say(ctx: Context, input: SayInput) -> Json:
    ctx.log(f"saying {input.text}")
    return {"said": input.text, "run": ctx.run_id, "key": ctx.idempotency_key, "step": ctx.step_id, "n": ctx.attempt}


@action(title="Refuse", summary="Fails.", on_interruption="fail")
async def refuse(ctx: Context, input: SayInput) -> Json:
    raise ActionFailed(
        "REFUSED",
        f"no {input.text}",
        retryable=True,
        retry_after_s=3,
        outcome_unknown=True,
        details={"got": [input.text]},
    )


@action(title="Break", summary="Has a bug.")
async def break_down(ctx: Context, input: SayInput) -> Json:
    raise KeyError(input.text)


@action(title="Hang", summary="Never ends.")
async def hang(ctx: Context, input: SayInput) -> Json:
    await asyncio.Event().wait()
    return None


@action(title="Time out inside", summary="Lets a time-out of its own escape.")
async def own_timeout(ctx: Context, input: SayInput) -> Json:
    raise TimeoutError("mine")


@action(title="Odd", summary="Gives what is no JSON.", effect="pure")
async def odd(ctx: Context, input: SayInput) -> Json:
    outputs: dict[str, object] = {
        "object": object(),
        "surrogate": "\ud800",
        "large": "x" * (MAX_OUTPUT_BYTES + 1),
        "deep": _nested(100_000),
    }
    return cast("Json", outputs[input.text])


@action(title="Chat", summary="Logs without end.", effect="pure")
async def chat(ctx: Context, input: SayInput) -> Json:
    for number in range(MAX_LOG_LINES * 2):
        ctx.log(f"{number}")
    return None


@store_action(title="Keep", summary="Keeps it.")
def keep(input: SayInput) -> StoreOperation:
    return StoreOperation(kind="put", key="k", value=[input.text])


def _nested(depth: int) -> object:
    value: object = None
    for _ in range(depth):
        value = [value]
    return value


TRIAL = Piece(
    name="trial",
    version="0.1.0",
    title="Trial",
    summary="For tests.",
    actions=[say, refuse, break_down, hang, own_timeout, odd, chat, keep],
)


@pytest.fixture
def actions() -> Actions:
    return Actions([TRIAL], NO_HTTP)


def call(action: str, text: object = "x", *, timeout_ms: int = 5_000, secrets: tuple[str, ...] = ()) -> ActionCall:
    return ActionCall(
        piece="trial",
        action=action,
        input=msgspec.json.encode({"text": text}),
        key="key-1",
        run_id=RUN_ID.bytes,
        project_id="project",
        step_id="step",
        attempt=2,
        timeout_ms=timeout_ms,
        secrets=secrets,
    )


async def test_a_call_gives_output_and_log_and_knows_its_run(actions: Actions) -> None:
    outcome = await actions.run(call("say", "hello"))
    assert msgspec.json.decode(outcome.output) == {
        "said": "hello",
        "run": str(RUN_ID),
        "key": "key-1",
        "step": "step",
        "n": 2,
    }
    assert outcome.log == ("saying hello",)


async def test_a_secret_leaves_neither_by_output_nor_by_log(actions: Actions) -> None:
    outcome = await actions.run(call("say", f"the {SECRET}", secrets=(SECRET,)))
    assert SECRET not in outcome.output.decode() + "".join(outcome.log)
    assert outcome.log == ("saying the ********",)


async def test_nor_by_a_failure_or_what_python_remembers_of_it(actions: Actions) -> None:
    for name in ("refuse", "break_down"):
        with pytest.raises(ActionFailed) as failed:
            await actions.run(call(name, SECRET, secrets=(SECRET,)))
        told = f"{failed.value} {failed.value.details} {''.join(traceback.format_exception(failed.value))}"
        assert SECRET not in told


async def test_a_failure_keeps_what_it_said(actions: Actions) -> None:
    with pytest.raises(ActionFailed) as failed:
        await actions.run(call("refuse", "way"))
    failure = failed.value
    assert (failure.kind, failure.message, failure.details) == ("REFUSED", "no way", {"got": ["way"]})
    assert (failure.retryable, failure.retry_after_s, failure.outcome_unknown) == (True, 3, True)


async def test_a_bug_of_a_piece_fails_its_step_only_and_leaves_the_outcome_unknown(actions: Actions) -> None:
    for name in ("break_down", "own_timeout"):
        with pytest.raises(ActionFailed) as failed:
            await actions.run(call(name))
        assert failed.value.kind == "PIECE_BROKEN"
        assert failed.value.outcome_unknown


async def test_a_call_ends_in_time(actions: Actions) -> None:
    with pytest.raises(TimedOut, match=r"longer than 0\.02 s"):
        await actions.run(call("hang", timeout_ms=20))


async def test_a_cancelled_call_is_cancelled_and_not_failed(actions: Actions) -> None:
    task = asyncio.create_task(actions.run(call("hang")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("document", "field", "message"),
    [
        (b'{"text": 7}', "text", "Field `text` must be a text, it is a whole number."),
        (
            b'{"text": null}',
            "text",
            "Field `text` must be a text, it is nothing (null). The expression in it found no value.",
        ),
        (b"{}", "text", "Field `text` is missing. Fill it in."),
        (b'{"text": "x", "txet": 1}', "txet", "There is no field `txet`. Remove it, or look for a typing error."),
        (b"[]", "", "The input must be an object, it is a list."),
        (b'{"text"', "", "The input is no JSON: Input data was truncated."),
        (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "", ""),
        (b'{"text": "\xff"}', "", ""),
    ],
)
async def test_an_input_that_does_not_fit_names_the_field_and_what_to_mend(
    actions: Actions, document: bytes, field: str, message: str
) -> None:
    with pytest.raises(ActionFailed) as failed:
        await actions.run(replace(call("say"), input=document))
    assert failed.value.kind == "INPUT_INVALID"
    assert not failed.value.retryable
    if message:
        assert failed.value.message == message
        assert failed.value.details.get("field", "") == field


@pytest.mark.parametrize("what", ["object", "surrogate", "large", "deep"])
async def test_an_output_that_is_no_json_or_too_much_of_it_fails(actions: Actions, what: str) -> None:
    with pytest.raises(ActionFailed) as failed:
        await actions.run(call("odd", what))
    assert failed.value.kind == "OUTPUT_INVALID"


async def test_a_log_without_end_is_cut_off_and_says_so(actions: Actions) -> None:
    outcome = await actions.run(call("chat"))
    assert len(outcome.log) == MAX_LOG_LINES + 1
    assert "cut off" in outcome.log[-1]


async def test_what_is_not_installed_is_named(actions: Actions) -> None:
    with pytest.raises(ActionFailed, match=r"has no action 'shout'.*say"):
        await actions.run(call("shout"))
    with pytest.raises(ActionFailed, match=r"No piece 'none' is installed. There are: trial"):
        actions.effect("none", "say", {})


async def test_a_store_action_gives_its_operation_and_stores_no_secret(actions: Actions) -> None:
    operation = actions.operation(call("keep", SECRET, secrets=(SECRET,)))
    assert operation == StoreOperation(kind="put", key="k", value=["********"])
    with pytest.raises(ActionFailed, match="must be a text"):
        actions.operation(call("keep", 7))
    with pytest.raises(ActionFailed, match="store operation"):
        await actions.run(call("keep"))
    with pytest.raises(ActionFailed, match="no store operation"):
        actions.operation(call("say"))


def test_effects_are_known_before_a_step_runs() -> None:
    installed = Actions(INSTALLED, NO_HTTP)
    assert installed.effect("http", "request", {"method": "GET"}) == ("read", "retry")
    assert installed.effect("http", "request", {"method": "HEAD"}) == ("read", "retry")
    for unknown in ({"method": "POST"}, {"method": "{{ order.method }}"}, {"method": None}, {"method": ["GET"]}, {}):
        assert installed.effect("http", "request", cast("dict[str, Json]", unknown)) == ("effect", "retry")
    assert installed.effect("data", "set", {}) == ("pure", "retry")
    assert installed.effect("store", "increment", {}) == ("store", "retry")
    assert Actions([TRIAL], NO_HTTP).effect("trial", "refuse", {}) == ("effect", "fail")


def test_the_catalogue_is_what_the_flow_language_reads() -> None:
    pieces = read_catalogue(Actions(INSTALLED, NO_HTTP).catalogue())
    assert sorted(pieces) == ["data", "http", "store", "webhook"]
    assert set(pieces["webhook"].triggers) == {"catch"}
    assert "request" in pieces["http"].actions
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", piece.version) for piece in pieces.values())


async def test_an_http_step_reaches_a_real_server_through_the_guard() -> None:
    async with serving() as server, Egress(EgressSettings(allow=[server.address])) as egress:
        installed = Actions(INSTALLED, egress)
        document = {"method": "POST", "url": server.url("/pick"), "auth": "bearer", "token": SECRET, "body": {"sku": 7}}
        made = ActionCall(
            "http", "request", msgspec.json.encode(document), "key-7", RUN_ID.bytes, "p", "ship", 1, 5_000, (SECRET,)
        )
        outcome = await installed.run(made)

    arrival = server.arrivals[0]
    assert msgspec.json.decode(outcome.output)["body"] == {"ok": True}
    assert (arrival.headers["idempotency-key"], arrival.headers["authorization"]) == ("key-7", f"Bearer {SECRET}")
    assert msgspec.json.decode(arrival.body) == {"sku": 7}
