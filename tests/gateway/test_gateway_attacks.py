"""Odd and hostile requests: every one of them is somebody's fault, and it is told, with a 4xx."""

import json
import socket
import time
from typing import Any

import pytest

from tests.gateway.running_gateway import PASSWORD, Person, RunningGateway
from tests.gateway.test_gateway_auth import refused

ODD_IDS = [
    "%00",
    "a%00b",
    "%2e%2e%2f",
    "..%2F..%2Fetc",
    "%252F",
    "\\..\\",
    "x" * 3000,
    "%ff%fe",
    "%ed%a0%80",
    "ü",
    "'--",
]
PATHS = [
    "/api/v1/flows/{}",
    "/api/v1/flows/{}/draft",
    "/api/v1/flows/{}/versions",
    "/api/v1/flows/{}/versions/{}",
    "/api/v1/flows/{}/export",
    "/api/v1/runs/{}",
    "/api/v1/connections/{}",
]


@pytest.mark.parametrize("path", PATHS)
def test_odd_ids_in_paths(person: Person, path: str) -> None:
    for odd in ODD_IDS:
        answer = person.client.get(path.replace("{}", odd))
        assert 400 <= answer.status_code < 500, (odd, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "query",
    ["page_size=-1", "page_size=201", f"page_size={10**400}", "page_size=1e3", "page_size=%00", "page_token=%00",
     "page_token=%F0%9F%92%A5", "page_token=" + "A" * 513, "page_token=AAAA", "page_token=%ff"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/api/v1/flows", "/api/v1/connections"])
def test_odd_pages(person: Person, path: str, query: str) -> None:
    assert person.client.get(f"{path}?{query}").status_code in (400, 422)


@pytest.mark.parametrize("query", ["status=done", "status=", "status=RUNNING", "flow_id=" + "x" * 37])
def test_odd_filters_of_runs(person: Person, query: str) -> None:
    assert person.client.get(f"/api/v1/runs?{query}").status_code == 422


BODIES: list[bytes] = [
    b"",
    b"{",
    b'{"email": }',
    b"null",
    b"[]",
    b'"text"',
    b"1",
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"1" * 5000,
    b'{"email":"\\ud800@example.org","password":"a long password","name":"x"}',
    b'{"email":"a@example.org","password":"\\udfff long password","name":"x"}',
    b'{"email":"a@example.org","password":"a long password","name":"\\u0000"}',
    b'{"email":{"$gt":""},"password":"a long password","name":"x"}',
    b'{"email":["a@example.org"],"password":true,"name":NaN}',
    json.dumps({str(number): number for number in range(100_000)}).encode(),
]


@pytest.mark.parametrize("number", range(len(BODIES)))
def test_odd_bodies_of_a_model(gateway: RunningGateway, number: int) -> None:
    as_json = {"content-type": "application/json"}
    answer = gateway.client().post("/api/v1/auth/sign-up", content=BODIES[number], headers=as_json)
    assert answer.status_code in (400, 422), answer.text[:300]
    assert len(answer.content) < 10_000


RAW_BODIES: list[bytes] = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"seen_revision":1,"operations":' + b"[" * 100_000,
    b'{"seen_revision":"1","operations":[]}',
    b'{"seen_revision":1,"operations":{}}',
    b'{"seen_revision":1,"operations":[]}',
    b'{"seen_revision":1,"operations":[1]}',
    b'{"seen_revision":1,"operations":["x"]}',
    b'{"seen_revision":1,"operations":[{"op":"unknown"}]}',
    b'{"seen_revision":1,"operations":[{"op":"rename","name":"\\ud800"}]}',
    b'{"seen_revision":%d,"operations":[{}]}' % 10**30,
    b'{"seen_revision":-%d,"operations":[{}]}' % 10**30,
    b'{"seen_revision":0,"operations":[{}]}',
    b'{"seen_revision":1,"operations":[{}],"edit_id":"\\ud800"}',
    b'{"seen_revision":1,"operations":[{}],"more":1}',
    b'{"seen_revision":NaN,"operations":[{}]}',
]


@pytest.mark.parametrize("number", range(len(RAW_BODIES)))
def test_odd_bodies_that_pass_through(person: Person, number: int) -> None:
    flow_id = person.client.post("/api/v1/flows", json={"name": "x"}).json()["flow"]["id"]
    answer = person.client.patch(
        f"/api/v1/flows/{flow_id}/draft", content=RAW_BODIES[number], headers={"content-type": "application/json"}
    )
    assert answer.status_code in (400, 422), answer.text[:300]


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x" * 201}, {"name": 1}, {"name": None}, {"document": []}, {"document": "text"},
        {"document": {"name": "a", "steps": [{"kind": "no_such_kind", "id": "x"}]}}, {"document": {"steps": 1}},
        {"document": {"name": {"a": 1}}}, {"document": {"name": "a", "schema": 10**30}}, {}, {"name": ""},
    ],
)  # fmt: skip
def test_odd_flows(person: Person, body: dict[str, Any]) -> None:
    answer = person.client.post("/api/v1/flows", json=body)
    assert 400 <= answer.status_code < 500, answer.text


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"\xff",
        b"{",
        b"- a\n- b",
        b"a: *nobody",
        b"&a [*a]",
        b"a: !!python/object:os.system x",
        b"\x00",
        b"a: [" * 5000,
        b"x: &x [1,1]\n" + b"".join(b"x%d: &x%d [*x,*x]\n" % (i, i) for i in range(20)),
        b"name: x\nname: y\n",
    ],
)
@pytest.mark.parametrize("kind", ["application/json", "application/yaml"])
def test_odd_documents(person: Person, document: bytes, kind: str) -> None:
    answer = person.client.post("/api/v1/flows/import", content=document, headers={"content-type": kind})
    assert 400 <= answer.status_code < 500, answer.text


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/xml", "json"]
)
@pytest.mark.parametrize("path", ["/api/v1/flows", "/api/v1/flows/import", "/api/v1/connections"])
def test_other_kinds_of_bodies_are_415(person: Person, kind: str, path: str) -> None:
    body = b'{"name":"x","secret":"y"}'
    refused(person.client.post(path, content=body, headers={"content-type": kind}), 415, "MEDIA_TYPE_UNSUPPORTED")


def test_a_body_over_the_limit_is_413_whether_announced_or_not(person: Person) -> None:
    large = b'{"name":"' + b"x" * (2 * 1024 * 1024) + b'"}'
    kind = {"content-type": "application/json"}
    for content in (large, iter([large[:1_000_000], large[1_000_000:]])):
        refused(person.client.post("/api/v1/flows", content=content, headers=kind), 413, "BODY_TOO_LARGE")


@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "9" * 30])
def test_an_odd_content_length_is_refused(gateway: RunningGateway, length: str) -> None:
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(f"POST /api/v1/auth/sign-in HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{{}}".encode())
        assert raw.recv(200).split(b" ")[1][:1] == b"4"


def test_what_does_not_exist_is_404_and_another_method_405(person: Person) -> None:
    refused(person.client.get("/api/v1/nothing"), 404, "ROUTE_NOT_FOUND")
    refused(person.client.get("/api/v1/flows/"), 404, "ROUTE_NOT_FOUND")
    refused(person.client.get("//api/v1/flows"), 404, "ROUTE_NOT_FOUND")
    answer = person.client.put("/api/v1/flows", json={})
    refused(answer, 405, "METHOD_NOT_ALLOWED")
    assert "POST" in answer.headers["allow"] or "GET" in answer.headers["allow"]


def test_webhooks_whose_service_is_away_are_503_and_not_lost_in_rest(gateway: RunningGateway) -> None:
    answer = gateway.client().post("/api/v1/webhooks/0197c1f0-6a1e-7c3a-9d5b-0f3c2f6d1e04", json={})
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1


def test_a_client_that_leaves_in_the_middle_of_its_body_hurts_nobody(gateway: RunningGateway, person: Person) -> None:
    host, port = gateway.url.removeprefix("http://").split(":")
    for _ in range(5):
        with socket.create_connection((host, int(port))) as raw:
            raw.sendall(
                b"POST /api/v1/auth/sign-in HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                b"content-length: 1000\r\n\r\n{"
            )
    time.sleep(0.1)
    assert person.client.get("/api/v1/me").status_code == 200


def test_markup_in_names_comes_back_as_json_that_no_browser_renders(person: Person) -> None:
    markup = "<script>alert(1)</script>"
    made = person.client.post("/api/v1/flows", json={"name": markup})
    assert made.json()["flow"]["name"] == markup
    for answer in (
        made,
        person.client.get(f"/api/v1/{markup}"),
        person.client.get("/api/v1/flows", params={"page_size": markup}),
    ):
        assert answer.headers["content-type"] in ("application/json", "application/problem+json")
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_sign_in_takes_any_text_as_a_password(gateway: RunningGateway, person: Person) -> None:
    for password in ("\x00", "x" * 1024, "💥" * 100, "' OR 1=1 --"):
        answer = gateway.client().post("/api/v1/auth/sign-in", json={"email": person.email, "password": password})
        refused(answer, 401, "WRONG_CREDENTIALS")
    right = gateway.client().post("/api/v1/auth/sign-in", json={"email": person.email, "password": PASSWORD})
    assert right.status_code == 200
