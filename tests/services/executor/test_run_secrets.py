"""A secret goes where the flow sends it and stays nowhere: not in the journal, the run's row, the store, the answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from urllib.parse import parse_qs, quote, quote_plus, urlsplit

import pytest
from millrace.executor.v1 import run_pb2 as pb

from tests.services.executor.running import Executor, Flow, Step, action, code, steps
from tests.services.executor.servers import LocalServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = 'p@ss w"ord/é+9?'
REFERENCE = "{{connections.crm.secret}}"


def disguises() -> Iterator[bytes]:
    """As which bytes it could be found."""
    data = SECRET.encode()
    yield data
    yield SECRET.encode("unicode_escape")
    yield SECRET.replace('"', '\\"').encode()
    yield data.hex().encode()
    for encoded in (quote(data, safe=""), quote(data), quote_plus(data), quote_plus(data, safe="/?@")):
        yield encoded.encode()
    for before in range(3):
        found = base64.b64encode(b"x" * before + data)
        yield found[4 if before else 0 : -4]


def with_secret(executor: Executor, *of_steps: Step) -> Flow:
    flow = executor.flow(*of_steps)
    executor.secret(flow, "crm", SECRET)
    return flow


async def assert_hidden(executor: Executor, flow: Flow, found: pb.GetRunResponse) -> None:
    """Nothing that is stored of a run, or told of it, holds the secret in any disguise."""
    row = await executor.database.fetchrow("SELECT error FROM executor.run WHERE run_id = $1", found.run.id)
    kept = await executor.database.fetch(
        "SELECT key, value FROM executor.store_entry WHERE project_id = $1", flow.project_id
    )
    stored = {
        "journal": await executor.journal(found.run.id),
        "row": (row["error"] if row else None) or b"",
        "store": b"".join(entry["key"].encode() + entry["value"] for entry in kept),
        "answer": found.SerializeToString(),
    }
    for place, held in stored.items():
        for disguise in disguises():
            assert disguise not in held, f"{disguise!r} is in the {place}"


BASE64 = """(text) => {
  const bytes = unescape(encodeURIComponent(text)), all = []
  const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
  for (let at = 0; at < bytes.length; at += 3) {
    const [a, b, c] = [0, 1, 2].map(offset => bytes.charCodeAt(at + offset))
    all.push(letters[a >> 2], letters[(a & 3) << 4 | b >> 4], letters[(b & 15) << 2 | c >> 6], letters[c & 63])
  }
  return all.map(letter => letter ?? '=').join('')
}"""


async def test_code_may_use_a_secret_but_not_hand_it_on(executor: Executor) -> None:
    flow = with_secret(
        executor,
        code(
            "it",
            """({s}) => {
              const base64 = BASE64
              console.log('with', s, base64(s))
              return { s, [s]: 1, inside: `<${s}>`, base64: base64('user:' + s), url: encodeURIComponent(s),
                       nested: [JSON.stringify({s})], length: s.length }
            }""".replace("BASE64", BASE64),
            input={"s": REFERENCE},
        ),
        action("kept", "store.put", {"key": "k", "value": "{{it}}"}),
    )
    found = await executor.run(flow)
    assert found.run.status == pb.RUN_STATUS_SUCCEEDED, found.run.error
    assert f'"length":{len(SECRET)}'.encode() in steps(found)["it"].output, "the code had the real one"
    assert json.loads(steps(found)["it"].input) == {"s": "•••"}
    await assert_hidden(executor, flow, found)


async def test_a_secret_in_what_code_throws_or_prints_before(executor: Executor) -> None:
    throws = "({s}) => { console.log(s); throw new Error(`refused: ${s} ${encodeURIComponent(s)}`) }"
    flow = with_secret(executor, code("it", throws, input={"s": REFERENCE}))
    found = await executor.run(flow)
    assert found.run.error.kind == "CODE_THREW"
    assert "refused: ********" in found.run.error.message
    assert list(steps(found)["it"].console) == ["********"]
    await assert_hidden(executor, flow, found)


@pytest.mark.parametrize("levels", [500, 501])
async def test_a_secret_deep_inside_a_value(executor: Executor, levels: int) -> None:
    deep = "({ s, levels }) => { while (levels--) s = [s]; return s }"
    flow = with_secret(executor, code("it", deep, input={"s": REFERENCE, "levels": levels}))
    found = await executor.run(flow)
    assert found.run.status == (pb.RUN_STATUS_SUCCEEDED if levels == 500 else pb.RUN_STATUS_FAILED), found
    await assert_hidden(executor, flow, found)


async def test_a_secret_beside_a_number_that_nothing_can_read(executor: Executor) -> None:
    flow = with_secret(executor, code("it", "({ s }) => [s, JSON.rawJSON('1e999')]", input={"s": REFERENCE}))
    found = await executor.run(flow)
    assert (found.run.status, found.run.error.kind) == (pb.RUN_STATUS_FAILED, "OUTPUT_INVALID")
    await assert_hidden(executor, flow, found)


async def test_a_secret_printed_by_code_that_never_ends(executor: Executor) -> None:
    flow = with_secret(
        executor,
        code("it", "({s}) => { console.log(s); for (;;) {} }", input={"s": REFERENCE}, timeout="200ms"),
    )
    found = await executor.run(flow)
    assert found.run.error.kind == "STEP_TIMED_OUT"
    await assert_hidden(executor, flow, found)


async def test_a_call_sends_a_secret_and_keeps_none_of_what_comes_back(executor: Executor, server: LocalServer) -> None:
    call = {
        "method": "POST",
        "url": server.url("/echo"),
        "query": {"token": REFERENCE},
        "body": {"password": REFERENCE},
    }
    flow = with_secret(executor, action("it", "http.request", call))
    found = await executor.run(flow)
    assert found.run.status == pb.RUN_STATUS_SUCCEEDED, found.run.error
    arrival = server.arrivals[-1]
    assert SECRET.replace('"', '\\"').encode() in arrival.body, "the real one was sent"
    assert parse_qs(urlsplit(arrival.target).query) == {"token": [SECRET]}
    await assert_hidden(executor, flow, found)


async def test_a_call_that_fails_tells_no_secret(executor: Executor, server: LocalServer) -> None:
    call = {"method": "POST", "url": server.url("/fail/9/{{connections.path.secret}}"), "body": REFERENCE}
    flow = with_secret(
        executor, action("it", "http.request", call, retry={"max_attempts": 2, "initial_interval": "10ms"})
    )
    executor.secret(flow, "path", "sk_live_9f8e7d6c5b")
    found = await executor.run(flow)
    assert found.run.status == pb.RUN_STATUS_FAILED
    assert found.run.error.message == f"POST {server.url('/fail/9/')}******** answered with status 500."
    assert b"sk_live" not in await executor.journal(found.run.id)
    await assert_hidden(executor, flow, found)


async def test_a_store_key_and_value_with_a_secret(executor: Executor) -> None:
    flow = with_secret(
        executor, action("it", "store.put", {"key": "of-{{connections.crm.secret}}", "value": REFERENCE})
    )
    found = await executor.run(flow)
    assert found.run.status == pb.RUN_STATUS_SUCCEEDED, found.run.error
    await assert_hidden(executor, flow, found)


async def test_basic_credentials_of_an_effect_are_not_in_its_durable_start(
    executor: Executor, server: LocalServer
) -> None:
    """The start of an effect is journaled with its input (I4): with references where secrets belong."""
    call = {"method": "POST", "url": server.url("/basic"), "auth": "basic", "username": "me", "password": REFERENCE}
    flow = with_secret(executor, action("it", "http.request", call))
    found = await executor.run(flow)
    assert found.run.status == pb.RUN_STATUS_SUCCEEDED, found.run.error
    expected = base64.b64encode(f"me:{SECRET}".encode()).decode()
    assert server.arrivals[-1].headers["authorization"] == f"Basic {expected}"
    await assert_hidden(executor, flow, found)
