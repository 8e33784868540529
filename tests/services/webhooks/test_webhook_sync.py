"""Senders that wait for their run's answer: over the stream, by asking, or in vain."""

import asyncio
import json

import pytest
from millrace.webhooks.v1 import ingest_pb2 as pb

from chassis.ids import bytes_of, new_id_bytes
from tests.services.webhooks.neighbours import Installation, header, problem, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
SYNC = pb.INGEST_MODE_SYNC


async def run_of(webhooks: Installation, flow_id: str, count: int = 1) -> bytes:
    """The run id of the newest event of a flow, once that many are in the log."""
    async with asyncio.timeout(10):
        while len(found := await webhooks.published(flow_id)) < count:
            await asyncio.sleep(0.01)
    return found[-1].run_id


async def test_the_flows_answer_is_what_the_sender_gets(either_way: Installation) -> None:
    flow_id = either_way.flow()
    answer = either_way.post(flow_id, b"{}", SYNC)
    run_id = await run_of(either_way, flow_id)
    (request,) = await either_way.published(flow_id)
    assert request.reply_to.endswith("webhooks.sock")
    await either_way.deliver(run_id, 201, b"<p>hi</p>", {"content-type": "text/html", "x-flow": "yes"})
    got = await answer
    assert (got.status, got.body) == (201, b"<p>hi</p>")
    assert header(got, "x-flow") == "yes"
    assert bytes_of(header(got, "x-millrace-run-id") or "") == run_id


async def test_a_flow_cannot_answer_for_the_host(either_way: Installation) -> None:
    flow_id = either_way.flow()
    answer = either_way.post(flow_id, b"{}", SYNC)
    headers = {
        "set-cookie": "session=stolen",
        "Clear-Site-Data": '"*"',
        "strict-transport-security": "max-age=63072000",
        "alt-svc": 'h2="elsewhere.example:443"',
        "x-long": "a" * 10_000,
        "content-length": "9999",
        "transfer-encoding": "chunked",
        "content-security-policy": "default-src *",
        "x-split": "a\r\nset-cookie: b=c",
        "bad name": "x",
        "x-wide": "\u20ac",
        "x-good": "caf\u00e9",
    }
    await either_way.deliver(await run_of(either_way, flow_id), 99, b"x", headers)
    got = await answer
    assert got.status == 500
    assert {one.name: one.value for one in got.headers if one.name != "x-millrace-run-id"} == {
        "content-security-policy": "sandbox",
        "x-content-type-options": "nosniff",
        "x-good": "caf\u00e9",
    }


async def test_an_answer_has_a_hundred_headers_at_most(either_way: Installation) -> None:
    flow_id = either_way.flow()
    answer = either_way.post(flow_id, b"{}", SYNC)
    many = {f"x-{number}": "v" for number in range(5000)}
    await either_way.deliver(await run_of(either_way, flow_id), 200, b"x", many)
    assert [one.name for one in (await answer).headers if one.value == "v"] == list(many)[:100]


async def test_an_answer_that_no_stream_brings_is_asked_for(either_way: Installation) -> None:
    flow_id = either_way.flow()
    answer = either_way.post(flow_id, b"{}", SYNC)
    run_id = await run_of(either_way, flow_id)
    assert either_way.executor.asked[run_id] == 0
    either_way.executor.durable[run_id] = (202, b"asked")
    got = await answer
    assert (got.status, got.body, header(got, "x-flow")) == (202, b"asked", "asked")


async def test_a_broken_stream_of_answers_makes_us_ask_at_once(either_way: Installation) -> None:
    flow_id = either_way.flow()
    answer = either_way.post(flow_id, b"{}", SYNC)
    run_id = await run_of(either_way, flow_id)
    either_way.executor.durable[run_id] = (200, b"found")
    await either_way.deliver(new_id_bytes())  # someone else's run; then the stream ends
    await until(lambda: either_way.executor.asked[run_id])
    assert (await answer).body == b"found"


async def test_a_run_that_takes_too_long_goes_on_and_the_sender_gets_408(either_way: Installation) -> None:
    flow_id = either_way.flow()
    answer = await either_way.post(flow_id, b"{}", SYNC)
    assert (answer.status, problem(answer)["reason"]) == (408, "SYNC_TIMEOUT")
    assert bytes_of(problem(answer)["run_id"]) == await run_of(either_way, flow_id)
    await either_way.deliver(await run_of(either_way, flow_id), 200, b"too late")  # ignored


async def test_many_wait_together_and_each_gets_its_own(either_way: Installation) -> None:
    flow_id = either_way.flow()
    answers = [either_way.post(flow_id, b'{"n":%d}' % n, SYNC) for n in range(200)]
    await run_of(either_way, flow_id, 200)
    for request in await either_way.published(flow_id):
        either_way.executor.durable[request.run_id] = (200, request.run_id.hex().encode())
    for answer in await asyncio.gather(*answers):
        assert bytes_of(header(answer, "x-millrace-run-id") or "").hex().encode() == answer.body


async def test_a_sender_that_left_harms_nobody(either_way: Installation) -> None:
    flow_id = either_way.flow()
    gone, stays = either_way.post(flow_id, b"{}", SYNC), either_way.post(flow_id, b"{}", SYNC)
    await run_of(either_way, flow_id, 2)
    gone.cancel()
    for request in await either_way.published(flow_id):
        await either_way.deliver(request.run_id, 200, b"done")
    assert (await stays).body == b"done"


KEYED = {"input": {"idempotency_header": "X-Event-Id"}}


async def test_a_sync_duplicate_waits_for_the_same_run(either_way: Installation) -> None:
    flow_id = either_way.flow(KEYED)
    headers = {"x-event-id": "e1"}
    first = either_way.post(flow_id, b"{}", SYNC, headers=headers)
    run_id = await run_of(either_way, flow_id)
    second = either_way.post(flow_id, b"{}", SYNC, headers=headers)
    await asyncio.sleep(0.05)
    either_way.executor.durable[run_id] = (207, b"once")
    assert [(one.status, one.body) for one in await asyncio.gather(first, second)] == [(207, b"once")] * 2
    later = await either_way.post(flow_id, b"{}", SYNC, headers=headers)
    assert (later.status, later.body) == (207, b"once")
    asynchronous = await either_way.post(flow_id, b"{}", headers=headers)
    assert bytes_of(json.loads(asynchronous.body)["run_id"]) == run_id
    assert {request.run_id for request in await either_way.published(flow_id)} == {run_id}
