"""A webhook becomes one durable event, or a refusal that tells why: the real service on the real log."""

import asyncio
import base64
import hashlib
import hmac
import json
from uuid import UUID

import pytest
from millrace.webhooks.v1 import ingest_pb2 as pb

from chassis import failpoints
from chassis.documents import unpack
from chassis.ids import bytes_of, new_text_id, timestamp_ms
from tests.services.webhooks.neighbours import COMMITS, PROJECT, Installation, document, header, problem

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_accepted_event_is_in_the_log_when_it_is_answered(webhooks: Installation) -> None:
    flow_id = webhooks.flow()
    answer = await webhooks.post(flow_id, b'{"n": 1.0}', query="a=1&a=2&b=x%20y", headers={"x-one": "1"})
    assert answer.status == 200
    run_id = json.loads(answer.body)["run_id"]
    assert header(answer, "x-millrace-run-id") == run_id
    (request,) = await webhooks.published(flow_id)
    assert request.run_id == bytes_of(run_id)
    assert UUID(run_id).version == 7
    assert timestamp_ms(UUID(run_id)) > 0
    live = webhooks.flows.live[flow_id]
    assert (request.project_id, request.version_id, request.trigger_id) == (PROJECT, live.version_id, "hook")
    assert (request.test, request.reply_to) == (False, "")
    assert await webhooks.output(flow_id) == {
        "method": "POST",
        "headers": {"content-type": "application/json", "x-one": "1"},
        "query": {"a": ["1", "2"], "b": "x y"},
        "files": [],
        "body": {"n": 1.0},
    }


@pytest.mark.parametrize(
    ("body", "content_type", "seen"),
    [
        (b"a=1&b=&a=2", "application/x-www-form-urlencoded", {"a": ["1", "2"], "b": ""}),
        ("grüß".encode(), "text/plain; charset=utf-8", "grüß"),
        (b"<a/>", "application/xml", "<a/>"),
        (b"", "application/json", None),
        (b"\x00\x01", "application/octet-stream", None),
        (b'{"a":1,"a":2}', "application/json", {"a": 2}),
        (b'"\\u0000"', "application/json", "\0"),
        (
            b'{"files":[{"id":"x"}],"filepath":"/etc/passwd"}',
            "application/json",
            {"files": [{"id": "x"}], "filepath": "/etc/passwd"},
        ),
    ],
)
async def test_bodies_of_every_kind_reach_the_flow(
    webhooks: Installation, body: bytes, content_type: str, seen: object
) -> None:
    flow_id = webhooks.flow()
    assert (await webhooks.post(flow_id, body, headers={"content-type": content_type})).status == 200
    output = await webhooks.output(flow_id)
    assert output["body"] == seen
    assert output["files"] == []
    if content_type.endswith("octet-stream"):
        assert output["raw_body_base64"] == base64.b64encode(body).decode()


@pytest.mark.parametrize(
    ("body", "content_type", "status", "reason"),
    [
        (b'{"a":', "application/json", 400, "JSON_INVALID"),
        (b"[" * 10_000 + b"]" * 10_000, "application/json", 400, "JSON_INVALID"),
        (b'"\\ud800"', "application/json", 400, "JSON_INVALID"),
        (b'"\xff"', "application/json", 400, "JSON_INVALID"),
        (b"NaN", "application/json", 400, "JSON_INVALID"),
        ("{}".encode("utf-16"), "application/json", 400, "JSON_INVALID"),
        (b"{}", "multipart/form-data; boundary=x", 400, "FORM_INVALID"),
        (b"{}", "multipart/form-data", 400, "FORM_INVALID"),
        (b"\xff\xfe", "application/x-www-form-urlencoded", 400, "FORM_INVALID"),
        (b"&".join([b"a=1"] * 1001), "application/x-www-form-urlencoded", 400, "FORM_INVALID"),
        (b"\xff", "text/plain", 400, "TEXT_INVALID"),
        (b"a", "text/plain; charset=utf-7", 415, "CHARSET_UNKNOWN"),
    ],
)
async def test_bodies_that_are_not_what_they_say_are_refused(
    webhooks: Installation, body: bytes, content_type: str, status: int, reason: str
) -> None:
    flow_id = webhooks.flow()
    answer = await webhooks.post(flow_id, body, headers={"content-type": content_type})
    assert (answer.status, problem(answer)["reason"]) == (status, reason)
    assert await webhooks.published(flow_id) == []


async def test_broken_json_names_line_column_and_position(webhooks: Installation) -> None:
    told = problem(await webhooks.post(webhooks.flow(), b'{\n  "a": tru }'))
    assert (told["line"], told["column"], told["position"]) == (2, 9, 10)


async def test_a_hundred_thousand_keys_and_odd_numbers_are_kept_as_they_came(webhooks: Installation) -> None:
    many, odd = webhooks.flow(), webhooks.flow()
    body = json.dumps({f"k{n}": n for n in range(100_000)}).encode()
    assert (await webhooks.post(many, body)).status == 200
    assert (await webhooks.post(odd, b'{"far":1e999,"big":123456789012345678901}')).status == 200
    (request,) = await webhooks.published(odd)
    assert b'{"far":1e999,"big":123456789012345678901}' in request.payload


async def test_compressed_bodies_are_not_unpacked(webhooks: Installation) -> None:
    flow_id = webhooks.flow()
    answer = await webhooks.post(flow_id, b"\x1f\x8b", headers={"content-encoding": "gzip"})
    assert (answer.status, problem(answer)["reason"]) == (415, "ENCODING_UNSUPPORTED")


async def test_unknown_addresses_are_looked_up_once_then_404(webhooks: Installation) -> None:
    flow_id = new_text_id()
    before = webhooks.flows.calls["GetLiveFlow"]
    answers = await asyncio.gather(*(webhooks.post(flow_id) for _ in range(20)))
    assert {problem(answer)["reason"] for answer in answers} == {"ENDPOINT_NOT_FOUND"}
    assert {answer.status for answer in answers} == {404}
    assert webhooks.flows.calls["GetLiveFlow"] == before + 1


@pytest.mark.parametrize("flow_id", ["x", "../flows", "%2e%2e", "0197c1f0", "'; DROP TABLE", "\0", "é", "0" * 36])
async def test_addresses_that_are_no_ids_ask_nobody(webhooks: Installation, flow_id: str) -> None:
    before = webhooks.flows.calls["GetLiveFlow"]
    assert (await webhooks.post(flow_id)).status == 404
    assert webhooks.flows.calls["GetLiveFlow"] == before


async def test_disabled_and_deleted_flows_are_told_apart(webhooks: Installation) -> None:
    disabled = await webhooks.post(webhooks.flow(enabled=False))
    assert (disabled.status, problem(disabled)["reason"], problem(disabled)["code"]) == (
        409,
        "FLOW_DISABLED",
        "flow_disabled",
    )
    deleted = await webhooks.post(webhooks.flow(enabled=False, deleted=True))
    assert (deleted.status, problem(deleted)["reason"]) == (410, "FLOW_DELETED")


async def test_after_a_change_is_reported_the_next_webhook_meets_it(webhooks: Installation) -> None:
    flow_id = webhooks.flow()
    assert (await webhooks.post(flow_id)).status == 200
    await webhooks.change(flow_id, enabled=False)
    assert (await webhooks.post(flow_id)).status == 409
    version_id = new_text_id()
    await webhooks.change(flow_id, enabled=True, version_id=version_id, document=document({"id": "other"}))
    assert (await webhooks.post(flow_id)).status == 200
    last = (await webhooks.published(flow_id))[-1]
    assert (last.version_id, last.trigger_id) == (version_id, "other")


async def test_a_change_that_cannot_be_applied_is_reported_and_the_old_version_stays(webhooks: Installation) -> None:
    flow_id = webhooks.flow()
    assert (await webhooks.post(flow_id)).status == 200
    old = webhooks.flows.live[flow_id].version_id
    broken = document({"input": {"auth": "hmac", "secret": "{{connections.nowhere.secret}}"}})
    await webhooks.change(flow_id, version_id=new_text_id(), document=broken)
    report = next(report for report in reversed(webhooks.flows.reports) if report.flow_id == flow_id)
    assert "nowhere" in report.failure
    assert (await webhooks.post(flow_id)).status == 200
    assert (await webhooks.published(flow_id))[-1].version_id == old


async def test_a_flow_whose_secret_is_missing_refuses_and_heals_when_it_is_there(webhooks: Installation) -> None:
    flow_id = webhooks.flow({"input": {"auth": "header", "secret": "{{connections.late.secret}}"}})
    answer = await webhooks.post(flow_id, headers={"x-webhook-secret": ""})
    assert (answer.status, problem(answer)["reason"]) == (503, "ENDPOINT_NOT_READY")
    assert header(answer, "retry-after")
    webhooks.auth.secrets["late"] = "here"
    await webhooks.change(flow_id)
    assert (await webhooks.post(flow_id, headers={"x-webhook-secret": "here"})).status == 200


@pytest.mark.parametrize("secret", ["", "   ", [], ["good", ""]])
async def test_an_empty_secret_lets_nobody_in(webhooks: Installation, secret: object) -> None:
    flow_id = webhooks.flow({"input": {"auth": "hmac", "secret": secret}})
    signature = hmac.digest(b"", b"{}", "sha256").hex()
    answer = await webhooks.post(flow_id, headers={"x-signature": signature})
    assert answer.status == 503
    assert await webhooks.published(flow_id) == []


async def test_several_triggers_are_addressed_by_id(webhooks: Installation) -> None:
    flow_id = webhooks.flow({"id": "a"}, {"id": "b"})
    unnamed = await webhooks.post(flow_id)
    assert (unnamed.status, problem(unnamed)["reason"]) == (409, "TRIGGER_AMBIGUOUS")
    assert "a, b" in problem(unnamed)["detail"]
    wrong = await webhooks.post(flow_id, trigger_id="c")
    assert wrong.status == 404
    assert "a, b" in problem(wrong)["detail"]
    assert (await webhooks.post(flow_id, trigger_id="b")).status == 200
    assert [request.trigger_id for request in await webhooks.published(flow_id)] == ["b"]


async def test_methods_and_types_that_the_trigger_does_not_take(webhooks: Installation) -> None:
    flow_id = webhooks.flow({"input": {"methods": ["PUT", "POST"], "content_types": ["application/json"]}})
    refused = await webhooks.post(flow_id, method="GET")
    assert (refused.status, header(refused, "allow")) == (405, "POST, PUT")
    other = await webhooks.post(flow_id, headers={"content-type": "text/plain"})
    assert (other.status, problem(other)["reason"]) == (415, "CONTENT_TYPE_UNSUPPORTED")
    assert (await webhooks.post(flow_id, method="PUT")).status == 200


async def test_a_github_delivery_is_verified_masked_and_deduplicated(webhooks: Installation) -> None:
    webhooks.auth.secrets["gh"] = "It's a Secret to Everybody"
    flow_id = webhooks.flow({"input": {"auth": "github", "secret": "{{ connections.gh.secret }}"}})
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    headers = {"content-type": "text/plain", "x-hub-signature-256": signature, "x-github-delivery": "72d3162e"}
    headers["authorization"] = "Bearer hush"
    first = await webhooks.post(flow_id, b"Hello, World!", headers=headers)
    again = await webhooks.post(flow_id, b"Hello, World!", headers=headers)
    assert (first.status, again.status) == (200, 200)
    assert first.body == again.body
    request, *others = await webhooks.published(flow_id)
    assert {other.run_id for other in others} <= {request.run_id}
    assert signature.encode() not in request.payload
    assert b"hush" not in request.payload
    refused = await webhooks.post(flow_id, b"Hello, World?", headers=headers)
    assert (refused.status, problem(refused)["reason"]) == (401, "SIGNATURE_INVALID")


async def test_a_replaced_secret_counts_at_once(webhooks: Installation) -> None:
    webhooks.auth.secrets["turn"] = "old"
    flow_id = webhooks.flow({"input": {"auth": "header", "secret": "{{connections.turn.secret}}"}})
    assert (await webhooks.post(flow_id, headers={"x-webhook-secret": "old"})).status == 200
    webhooks.auth.secrets["turn"] = "new"
    webhooks.clock.advance(3)
    calls = webhooks.auth.calls
    wrong = await asyncio.gather(*(webhooks.post(flow_id, headers={"x-webhook-secret": "bad"}) for _ in range(10)))
    assert {answer.status for answer in wrong} == {401}
    assert webhooks.auth.calls == calls + 1
    assert (await webhooks.post(flow_id, headers={"x-webhook-secret": "new"})).status == 200
    assert (await webhooks.post(flow_id, headers={"x-webhook-secret": "old"})).status == 401


async def test_flows_away_keeps_known_endpoints_alive_and_refuses_unknown_ones(webhooks: Installation) -> None:
    known, unknown = webhooks.flow(), webhooks.flow()
    assert (await webhooks.post(known)).status == 200
    webhooks.flows.away = True
    try:
        assert (await webhooks.post(known)).status == 200
        answer = await webhooks.post(unknown)
        assert answer.status == 503
        assert header(answer, "retry-after") == "1"
    finally:
        webhooks.flows.away = False
    assert (await webhooks.post(unknown)).status == 200


async def test_a_large_body_travels_as_a_file(webhooks: Installation) -> None:
    flow_id = webhooks.flow()
    noise = hashlib.shake_256(b"x").hexdigest(200_000)
    body = json.dumps({"noise": noise}).encode()
    assert (await webhooks.post(flow_id, body)).status == 200
    (request,) = await webhooks.published(flow_id)
    assert request.payload == b""
    assert json.loads(unpack(await webhooks.download(request.payload_file_id)))["body"] == {"noise": noise}


async def test_files_of_a_form_are_stored_and_referred_to(webhooks: Installation) -> None:
    flow_id = webhooks.flow()
    body = (
        b'--XX\r\nContent-Disposition: form-data; name="note"\r\n\r\nhi\r\n'
        b'--XX\r\nContent-Disposition: form-data; name="doc"; filename="..\\..\\a.txt"\r\n'
        b"Content-Type: text/plain\r\n\r\n"
        b"content\r\n--XX--\r\n"
    )
    answer = await webhooks.post(flow_id, body, headers={"content-type": "multipart/form-data; boundary=XX"})
    assert answer.status == 200
    output = await webhooks.output(flow_id)
    (file,) = output["files"]
    assert output["body"] == {"note": "hi", "doc": file}
    assert (file["name"], file["content_type"], file["size_bytes"]) == ("a.txt", "text/plain", 7)
    assert await webhooks.download(file["id"]) == b"content"


async def test_a_thousand_webhooks_at_once_cost_few_commits_messages_and_no_query(webhooks: Installation) -> None:
    flow_id = webhooks.flow()
    assert (await webhooks.post(flow_id)).status == 200
    flows, auth = sum(webhooks.flows.calls.values()), webhooks.auth.calls
    messages, commits = webhooks.messages["ingest"], await webhooks.database.fetchval(COMMITS)
    answers = await asyncio.gather(*(webhooks.post(flow_id, b'{"n":%d}' % n) for n in range(1000)))
    assert {answer.status for answer in answers} == {200}
    requests = (await webhooks.published(flow_id))[1:]
    assert len({request.run_id for request in requests}) == 1000
    assert webhooks.messages["ingest"] - messages <= 10
    assert await webhooks.database.fetchval(COMMITS) - commits <= 10
    assert (sum(webhooks.flows.calls.values()), webhooks.auth.calls) == (flows, auth)


async def test_a_simulation_runs_the_draft_and_keeps_the_event(webhooks: Installation) -> None:
    flow_id = new_text_id()
    webhooks.flows.drafts[flow_id] = document({"id": "draft", "input": {"auth": "header", "secret": "s"}})
    simulate = pb.INGEST_MODE_SIMULATE
    refused = await webhooks.post(flow_id, b'{"a":1}', simulate)
    assert (refused.status, problem(refused)["reason"]) == (401, "CREDENTIALS_INVALID")
    answer = await webhooks.post(flow_id, b'{"a":1}', simulate, headers={"x-webhook-secret": "s"})
    assert answer.status == 200
    (request,) = await webhooks.published(flow_id)
    assert (request.test, request.trigger_id) == (True, "draft")
    sample = next(sample for sample in webhooks.flows.samples if sample.flow_id == flow_id)
    assert (sample.project_id, sample.trigger_id) == (PROJECT, "draft")
    assert json.loads(sample.output)["body"] == {"a": 1}
    assert b'"s"' not in sample.output
    unknown = await webhooks.post(new_text_id(), b"{}", simulate)
    assert unknown.status == 404


async def test_refused_deliveries_are_kept_sparsely_and_without_credentials(webhooks: Installation) -> None:
    flow_id = webhooks.flow({"input": {"auth": "header", "secret": "right"}})
    headers = {"x-webhook-secret": "wrong-one", "authorization": "Bearer hush"}
    await asyncio.gather(*(webhooks.post(flow_id, b"{}", headers=headers) for _ in range(50)))
    query = "SELECT status, reason, kind, headers, body FROM webhooks.trigger_event WHERE flow_id = $1"
    async with asyncio.timeout(10):
        while not (rows := await webhooks.database.fetch(query, flow_id)):
            await asyncio.sleep(0.05)
    assert 1 <= len(rows) <= 10
    assert {(row["status"], row["reason"], row["kind"]) for row in rows} == {(401, "CREDENTIALS_INVALID", "refused")}
    assert all(b"wrong-one" not in row["headers"] and b"hush" not in row["headers"] for row in rows)


async def test_a_fault_of_one_request_is_its_own(webhooks: Installation) -> None:
    flow_id = webhooks.flow()
    large = json.dumps(hashlib.shake_256(b"y").hexdigest(200_000)).encode()
    with failpoints.armed("webhooks.payload_stored=error"):
        odd, good = webhooks.post(flow_id, large), webhooks.post(flow_id)
        assert (await good).status == 200
        answer = await odd
    assert (answer.status, problem(answer)["reason"]) == (500, "INTERNAL")
    assert len(await webhooks.published(flow_id)) == 1
