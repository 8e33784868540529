"""The webhook routes on a real HTTP server: what is let in, what is refused before anybody reads it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from millrace.webhooks.v1 import ingest_pb2 as pb
from starlette.types import Receive, Scope, Send

from chassis.errors import Unavailable
from gateway.addresses import Senders
from gateway.hooks import Hooks, address_of
from gateway.server import HttpServer
from gateway.settings import GatewaySettings

FLOW = "0197c1f0-0000-7000-8000-000000000001"
PATH = f"/api/v1/webhooks/{FLOW}"
LIMIT = 64 * 1024


@dataclass
class Service:
    """Stands where the stream to webhooks begins: takes what the routes hand on."""

    taken: list[pb.InboundWebhook] = field(default_factory=list)
    answer: pb.OutboundAnswer = field(default_factory=lambda: pb.OutboundAnswer(status=200, body=b"ok"))
    error: Unavailable | None = None
    hold: asyncio.Event | None = None

    async def call(self, hook: pb.InboundWebhook) -> pb.OutboundAnswer:
        if self.error is not None:
            raise self.error
        self.taken.append(hook)
        if self.hold is not None:
            await self.hold.wait()
        return self.answer


@asynccontextmanager
async def running(service: Service, home: Path, **set_: Any) -> AsyncIterator[httpx.AsyncClient]:
    settings = GatewaySettings(home=home, webhook_body_limit_bytes=LIMIT, body_timeout_s=0.5, **set_)
    hooks = Hooks(service.call, Senders(settings.trusted_proxies), settings)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await hooks(scope, receive, send)

    async with HttpServer("127.0.0.1", 0, 1.0) as server:
        serving = asyncio.create_task(server.serve(app))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
            yield client
        serving.cancel()
        await asyncio.wait({serving})


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
async def client(service: Service, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with running(service, tmp_path) as opened:
        yield opened


@asynccontextmanager
async def raw(client: httpx.AsyncClient) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
    yield reader, writer
    writer.close()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_every_method_of_a_webhook_is_handed_on_as_it_came(
    client: httpx.AsyncClient, service: Service, method: str
) -> None:
    headers = [(b"X-Two", b"a"), (b"X-Two", b"b\xe9")]
    answer = await client.request(method, PATH, params={"a": "1 2"}, content=b'{"x": 1}', headers=headers)
    assert (answer.status_code, answer.content) == (200, b"ok")
    (hook,) = service.taken
    assert (hook.flow_id, hook.trigger_id, hook.mode) == (FLOW, "", pb.INGEST_MODE_ASYNC)
    assert (hook.method, hook.body, hook.query, hook.remote_address) == (method, b'{"x": 1}', "a=1+2", "127.0.0.1")
    assert [one.value for one in hook.headers if one.name == "x-two"] == ["a", "bé"]


@pytest.mark.parametrize(
    ("path", "trigger_id", "mode"),
    [
        ("", "", pb.INGEST_MODE_ASYNC),
        ("/sync", "", pb.INGEST_MODE_SYNC),
        ("/simulate", "", pb.INGEST_MODE_SIMULATE),
        ("/triggers/a", "a", pb.INGEST_MODE_ASYNC),
        ("/triggers/a/sync", "a", pb.INGEST_MODE_SYNC),
        ("/triggers/sync", "sync", pb.INGEST_MODE_ASYNC),
        ("/triggers/a/simulate", "a", pb.INGEST_MODE_SIMULATE),
    ],
)
def test_addresses(path: str, trigger_id: str, mode: int) -> None:
    assert address_of(PATH + path) == (FLOW, trigger_id, mode)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/webhooks/",
        "/api/v1/webhooks//sync",
        PATH + "/",
        PATH + "/other",
        PATH + "/sync/sync",
        PATH + "/triggers/",
        PATH + "/triggers/a/b",
        PATH + "/triggers/a/b/sync",
        PATH + "/triggers/" + "a" * 65,
        "/api/v1/webhooks/" + "a" * 65,
        PATH + "/%2e%2e/%2e%2e/flows",
        PATH + "%2Fsync%2Fx",
        PATH + "/..%5c..%5cflows",
    ],
)
async def test_paths_that_are_no_address_are_not_handed_on(
    client: httpx.AsyncClient, service: Service, path: str
) -> None:
    async with raw(client) as (reader, writer):
        writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"ENDPOINT_NOT_FOUND" in answer
    assert service.taken == []


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PROPFIND"])
async def test_other_methods_are_told_which_there_are(client: httpx.AsyncClient, service: Service, method: str) -> None:
    answer = await client.request(method, PATH)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST, PUT, PATCH, DELETE")
    assert service.taken == []


async def test_a_body_at_the_limit_is_taken_and_one_over_it_is_413(client: httpx.AsyncClient, service: Service) -> None:
    assert (await client.post(PATH, content=b"x" * LIMIT)).status_code == 200
    answer = await client.post(PATH, content=b"x" * (LIMIT + 1))
    assert (answer.status_code, answer.json()["reason"]) == (413, "BODY_TOO_LARGE")
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(service.taken) == 1


@pytest.mark.parametrize("length", ["99999999", "9" * 30])
async def test_a_content_length_over_the_limit_is_refused_before_the_body(
    client: httpx.AsyncClient, service: Service, length: str
) -> None:
    async with raw(client) as (reader, writer):
        writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.split(b" ", 2)[1] in (b"413", b"400")  # a length that no number holds is refused by the server itself
    assert service.taken == []


async def test_a_chunked_body_is_cut_off_at_the_limit(client: httpx.AsyncClient, service: Service) -> None:
    async with raw(client) as (reader, writer):
        writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(LIMIT // 8192 + 1):
            writer.write(b"2000\r\n" + b"x" * 8192 + b"\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert service.taken == []


async def test_a_slow_upload_is_given_up(client: httpx.AsyncClient, service: Service) -> None:
    async with raw(client) as (reader, writer):
        writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc".encode())
        answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"BODY_TOO_SLOW" in answer
    assert service.taken == []


async def test_an_aborted_upload_leaves_nothing(client: httpx.AsyncClient, service: Service) -> None:
    async with raw(client) as (_, writer):
        writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc".encode())
        await writer.drain()
    assert (await client.post(PATH)).status_code == 200
    assert len(service.taken) == 1


async def test_a_sender_that_leaves_while_it_waits_harms_nobody(client: httpx.AsyncClient, service: Service) -> None:
    service.hold = asyncio.Event()
    async with raw(client) as (_, writer):
        writer.write(f"POST {PATH}/sync HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        async with asyncio.timeout(5):
            while not service.taken:
                await asyncio.sleep(0.01)
    service.hold.set()
    assert (await client.post(PATH)).status_code == 200


async def test_the_answer_is_written_as_it_came(client: httpx.AsyncClient, service: Service) -> None:
    service.answer = pb.OutboundAnswer(
        status=418,
        headers=[
            pb.Header(name="x-a", value="1"),
            pb.Header(name="x-a", value="é"),
            pb.Header(name="content-type", value="text/x"),
        ],
        body=b"\x00\xff",
    )
    answer = await client.post(PATH + "/sync")
    assert (answer.status_code, answer.content) == (418, b"\x00\xff")
    assert [value for name, value in answer.headers.raw if name.lower() == b"x-a"] == [b"1", "é".encode("latin-1")]


async def test_an_answer_without_content_has_none(client: httpx.AsyncClient, service: Service) -> None:
    service.answer = pb.OutboundAnswer(status=204, body=b"not sent")
    answer = await client.post(PATH + "/sync")
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await client.post(PATH)).status_code == 204  # the connection is still in step


async def test_webhooks_away_is_503_with_retry_after(client: httpx.AsyncClient, service: Service) -> None:
    service.error = Unavailable("STREAM_BROKEN", "The connection broke.", retry_after_s=0.2)
    answer = await client.post(PATH)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["reason"] == "STREAM_BROKEN"


async def test_no_answer_in_time_is_503(service: Service, tmp_path: Path) -> None:
    service.hold = asyncio.Event()
    async with running(service, tmp_path, webhook_answer_timeout_s=0.1) as client:
        answer = await client.post(PATH)
    assert (answer.status_code, answer.json()["reason"]) == (503, "WEBHOOKS_AWAY")
    assert answer.headers["retry-after"] == "1"


async def test_only_trusted_proxies_say_who_the_sender_is(service: Service, tmp_path: Path) -> None:
    forwarded = {"x-forwarded-for": "6.6.6.6, 203.0.113.9, 10.0.0.2"}
    async with running(service, tmp_path) as client:
        await client.post(PATH, headers=forwarded)
    async with running(service, tmp_path, trusted_proxies=["127.0.0.0/8", "10.0.0.0/8"]) as client:
        await client.post(PATH, headers=forwarded)
    assert [hook.remote_address for hook in service.taken] == ["127.0.0.1", "203.0.113.9"]


async def test_problems_name_type_status_and_reason(client: httpx.AsyncClient) -> None:
    told = json.loads((await client.post(PATH + "/other")).content)
    assert {"type", "title", "status", "detail", "reason"} <= told.keys()
