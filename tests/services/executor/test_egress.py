"""Going out, against real servers: what is refused at connect time, how failures are told apart, what is bounded."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, cast

import pytest
from aiohttp import TCPConnector, web
from aiohttp.abc import AbstractResolver, ResolveResult
from millrace_sdk import (
    ActionFailed,
    ConnectFailed,
    ConnectionLost,
    EgressBlocked,
    Http,
    InputInvalid,
    ResponseTooLarge,
    TimedOut,
)

from services.executor.egress import Egress, EgressSettings, GuardedResolver
from services.executor.egress_rules import AllowList, Gate
from tests.services.executor.servers import LocalServer, answering_raw, breaking_on_second_request, serving

LOOPBACKS = (
    "127.0.0.1",
    "localhost",
    "127.1",
    "2130706433",
    "0x7f.1",
    "[::ffff:127.0.0.1]",
    "[::]",
    "0.0.0.0",  # noqa: S104 - called, not bound
)


class Names(AbstractResolver):
    """A name server of our own: each name's answers, one after the other, the last one for ever."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self._answers = {name.replace("_", "."): list(turns) for name, turns in answers.items()}
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        turns = self._answers.get(host)
        if turns is None:
            raise OSError(f"{host} is not known")
        addresses = turns.pop(0) if len(turns) > 1 else turns[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        pass


@asynccontextmanager
async def going_out(*allow: str, names: Names | None = None, **settings: Any) -> AsyncIterator[Egress]:
    async with Egress(EgressSettings(allow=allow, **settings), resolver=names) as egress:
        yield egress


async def redirect_to(url: str, status: int = 302) -> web.StreamResponse:
    return web.Response(status=status, headers={"Location": url})


async def test_a_call_carries_method_headers_and_body_and_gives_the_whole_answer() -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        response = web.Response(status=201, body=b"made", headers={"X-One": "1"})
        response.headers.add("X-One", "2")
        return response

    async with serving(answer) as server, going_out(server.address) as egress:
        http: Http = egress
        response = await http.request("POST", server.url("/a?b=c"), headers={"X-Key": "k"}, body=b"data")

    assert (response.status, response.body, response.headers["x-one"]) == (201, b"made", "1, 2")
    arrival = server.arrivals[0]
    assert (arrival.method, arrival.target, arrival.body, arrival.headers["x-key"]) == ("POST", "/a?b=c", b"data", "k")
    assert arrival.headers["user-agent"] == "Millrace"
    assert egress.in_flight == 0


class TestAddresses:
    async def test_a_local_server_is_not_reached_without_the_allow_list(self) -> None:
        async with serving() as server, going_out() as egress:
            for host in LOOPBACKS:
                with pytest.raises(EgressBlocked):
                    await egress.request("GET", f"http://{host}:{server.port}/")
        assert server.arrivals == []

    async def test_a_name_that_leads_inside_is_refused_by_its_address(self) -> None:
        names = Names(
            inside_example=[["127.0.0.1"]], meta_example=[["169.254.169.254"]], six_example=[["::1", "fd00::1"]]
        )
        async with serving() as server, going_out(names=names) as egress:
            for name in ("inside.example", "meta.example", "six.example"):
                with pytest.raises(EgressBlocked, match="not a public address"):
                    await egress.request("GET", f"http://{name}:{server.port}/")
        assert server.arrivals == []

    async def test_a_name_that_leads_both_ways_is_followed_to_the_public_side_only(self) -> None:
        names = Names(both_example=[["127.0.0.1", "8.8.8.8", "::1", "::ffff:10.0.0.1", "2606:4700::1111"]])
        guarded = GuardedResolver(names, Gate(AllowList()), set())
        usable = await guarded.resolve("both.example", 80)
        assert [result["host"] for result in usable] == ["8.8.8.8", "2606:4700::1111"]

    async def test_rebinding_changes_nothing_because_the_address_that_was_judged_is_the_one_connected_to(self) -> None:
        # First look-up: an address the operator opened. Second: the same port inside, on an address that is not open.
        names = Names(rebinding_example=[["127.0.0.1"], ["127.0.0.2"]])

        async def answer(_request: web.Request) -> web.StreamResponse:
            return web.Response(headers={"Connection": "close"})

        async with serving(answer) as server, going_out(server.address, names=names) as egress:
            url = f"http://rebinding.example:{server.port}/"
            assert (await egress.request("GET", url)).status == 200
            assert names.asked == ["rebinding.example"]  # one look-up serves check and connect
            forget_addresses(egress)
            with pytest.raises(EgressBlocked):
                await egress.request("GET", url)
        assert names.asked == ["rebinding.example"] * 2
        assert len(server.arrivals) == 1

    async def test_the_socket_refuses_even_when_the_resolver_was_fooled(self) -> None:
        async with going_out() as egress:
            for address in ("127.0.0.1", "10.0.0.1", "::1", "fe80::1%1"):
                with pytest.raises(OSError, match="not a public address"):
                    egress._open_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, 80)))

    async def test_the_allow_list_opens_one_port_only(self) -> None:
        async with serving() as server, serving() as other, going_out(server.address) as egress:
            assert (await egress.request("GET", server.url())).status == 200
            with pytest.raises(EgressBlocked):
                await egress.request("GET", other.url())
        assert other.arrivals == []

    async def test_an_open_name_is_reached_wherever_it_leads(self) -> None:
        names = Names(warehouse_internal=[["127.0.0.1"]], evil_example=[["127.0.0.1"]])
        async with serving() as server, going_out(f"warehouse.internal:{server.port}", names=names) as egress:
            assert (await egress.request("GET", f"http://warehouse.internal:{server.port}/")).status == 200
            with pytest.raises(EgressBlocked):
                await egress.request("GET", f"http://evil.example:{server.port}/")
        assert len(server.arrivals) == 1

    async def test_a_webhook_of_millrace_itself_is_reached(self) -> None:
        async with serving() as server:
            own = f"http://localhost:{server.port}"
            async with going_out(public_url=own) as egress:
                assert (await egress.request("POST", f"{own}/api/v1/webhooks/x")).status == 200
                with pytest.raises(EgressBlocked):
                    await egress.request("GET", f"{own}/api/v1/flows")
        assert len(server.arrivals) == 1

    @pytest.mark.parametrize(
        "url", [{"href": "http://8.8.8.8"}, 2130706433, b"http://8.8.8.8/", None, ["http://8.8.8.8"]]
    )
    async def test_an_object_in_place_of_a_text_is_refused(self, url: object) -> None:
        async with going_out() as egress:
            with pytest.raises(InputInvalid):
                await egress.request("GET", cast("str", url))

    @pytest.mark.parametrize(
        "url",
        [
            "http://",
            "http:///x",
            "http://a b/",
            "http://[::1",
            "http://x\r\nHost: y/",
            " http://8.8.8.8/",
            "http://x:99999/",
            "",
        ],
    )
    async def test_a_url_that_is_none_is_refused(self, url: str) -> None:
        async with going_out() as egress:
            with pytest.raises((InputInvalid, EgressBlocked)):
                await egress.request("GET", url)


class TestRedirects:
    @pytest.mark.parametrize(
        "target",
        [
            "http://127.0.0.1:{inside}/",
            "http://localhost:{inside}/",
            "//127.0.0.1:{inside}/",
            "http://2130706433:{inside}/",
            "http://[::ffff:127.0.0.1]:{inside}/",
            "http://169.254.169.254/latest/",
            "file:///etc/passwd",
            "gopher://8.8.8.8/",
            "http://inside.example:{inside}/",
        ],
    )
    async def test_a_redirect_to_the_inside_is_refused(self, target: str) -> None:
        names = Names(inside_example=[["127.0.0.1"]])
        async with serving() as inside:

            async def answer(_request: web.Request) -> web.StreamResponse:
                return await redirect_to(target.format(inside=inside.port))

            async with serving(answer) as server, going_out(server.address, names=names) as egress:
                with pytest.raises(EgressBlocked):
                    await egress.request("GET", server.url())
            assert inside.arrivals == []
            assert len(server.arrivals) == 1

    async def test_a_redirect_to_a_stranger_takes_no_credentials_along(self) -> None:
        async with serving() as stranger:

            async def answer(_request: web.Request) -> web.StreamResponse:
                return await redirect_to(stranger.url("/there"), status=307)

            async with serving(answer) as server, going_out(server.address, stranger.address) as egress:
                sent = {
                    "Authorization": "Bearer t",
                    "Cookie": "c",
                    "X-Api-Key": "s",
                    "Accept": "a/b",
                    "Idempotency-Key": "k",
                }
                response = await egress.request("POST", server.url(), headers=sent, body=b"data")

        arrival = stranger.arrivals[0]
        assert response.url == stranger.url("/there")
        assert (arrival.method, arrival.body) == ("POST", b"data")
        assert arrival.headers["accept"] == "a/b"
        assert arrival.headers["idempotency-key"] == "k"
        assert not {"authorization", "cookie", "x-api-key"} & set(arrival.headers)
        assert server.arrivals[0].headers["authorization"] == "Bearer t"

    async def test_within_one_origin_they_stay(self) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            return await redirect_to("/b") if request.path == "/a" else web.Response(text="there")

        async with serving(answer) as server, going_out(server.address) as egress:
            response = await egress.request("GET", server.url("/a"), headers={"Authorization": "Bearer t"})
        assert response.text() == "there"
        assert [arrival.headers.get("authorization") for arrival in server.arrivals] == ["Bearer t", "Bearer t"]

    @pytest.mark.parametrize(
        ("status", "method"), [(301, "GET"), (302, "GET"), (303, "GET"), (307, "POST"), (308, "POST")]
    )
    async def test_a_post_becomes_a_get_where_the_status_says_so(self, status: int, method: str) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            return await redirect_to("/b", status) if request.path == "/a" else web.Response()

        async with serving(answer) as server, going_out(server.address) as egress:
            await egress.request("POST", server.url("/a"), body=b"x", headers={"Content-Type": "text/plain"})
        last = server.arrivals[1]
        assert (last.method, last.body, "content-type" in last.headers) == (
            method,
            b"x" if method == "POST" else b"",
            method == "POST",
        )

    async def test_a_circle_ends(self) -> None:
        async def answer(_request: web.Request) -> web.StreamResponse:
            return await redirect_to("/again")

        async with serving(answer) as server, going_out(server.address) as egress:
            with pytest.raises(ActionFailed) as failed:
                await egress.request("GET", server.url(), max_redirects=5)
            assert failed.value.kind == "TOO_MANY_REDIRECTS"
            assert len(server.arrivals) == 6
            assert (await egress.request("GET", server.url(), max_redirects=0)).status == 302


class TestFailures:
    async def test_nobody_listens_means_nothing_was_sent(self) -> None:
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            port = reserved.getsockname()[1]
            async with going_out(f"127.0.0.1:{port}") as egress:
                with pytest.raises(ConnectFailed) as failed:
                    await egress.request("GET", f"http://127.0.0.1:{port}/")
        assert failed.value.retryable
        assert not failed.value.outcome_unknown

    async def test_an_unknown_name_is_a_failed_connection(self) -> None:
        async with going_out(names=Names()) as egress:
            with pytest.raises(ConnectFailed, match=r"nowhere\.example"):
                await egress.request("GET", "http://nowhere.example/secret?token=abc")

    @pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE"])
    async def test_a_connection_that_breaks_leaves_the_outcome_unknown_and_is_not_tried_again_here(
        self, method: str
    ) -> None:
        async with breaking_on_second_request() as (port, arrivals), going_out(f"127.0.0.1:{port}") as egress:
            url = f"http://127.0.0.1:{port}/"
            assert (await egress.request("GET", url)).status == 200
            with pytest.raises(ConnectionLost) as failed:
                await egress.request(method, url)
        assert failed.value.outcome_unknown
        assert failed.value.retryable
        assert len(arrivals) == 2

    async def test_a_slow_answer_times_out(self) -> None:
        released = asyncio.Event()

        async def answer(_request: web.Request) -> web.StreamResponse:
            await released.wait()
            return web.Response()

        async with serving(answer) as server, going_out(server.address) as egress:
            with pytest.raises(TimedOut) as failed:
                await egress.request("POST", server.url("/slow?token=abc"), timeout=timedelta(milliseconds=50))
            released.set()
        assert failed.value.outcome_unknown
        assert "abc" not in failed.value.message
        assert egress.in_flight == 0

    async def test_cancelling_a_call_leaves_nothing_in_flight(self) -> None:
        arrived, released = asyncio.Event(), asyncio.Event()

        async def answer(_request: web.Request) -> web.StreamResponse:
            arrived.set()
            await released.wait()
            return web.Response()

        async with serving(answer) as server, going_out(server.address) as egress:
            call = asyncio.create_task(egress.request("GET", server.url()))
            await arrived.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            released.set()
            assert egress.in_flight == 0

    async def test_an_answer_that_is_no_http_is_told(self) -> None:
        async with answering_raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n") as port, going_out(f"127.0.0.1:{port}") as egress:
            with pytest.raises(ActionFailed) as failed:
                await egress.request("GET", f"http://127.0.0.1:{port}/")
        assert failed.value.kind == "BAD_RESPONSE"


class TestLimits:
    async def test_an_announced_size_over_the_limit_is_not_read(self) -> None:
        await self._refused(lambda: web.Response(body=b"x" * 5_000))

    async def test_nor_one_that_was_not_announced(self) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(50):
                yield b"x" * 100

        await self._refused(lambda: web.Response(body=chunks()))

    async def test_nor_one_that_grows_as_it_is_unpacked(self) -> None:
        packed = gzip.compress(b"\0" * 10_000_000)
        await self._refused(
            lambda: web.Response(body=packed, headers={"Content-Encoding": "gzip"}), limit=len(packed) * 2
        )

    async def test_nor_one_with_headers_without_end(self) -> None:
        await self._refused(lambda: web.Response(headers={f"X-{number}": "1" for number in range(200)}))
        await self._refused(lambda: web.Response(headers={"X-Long": "1" * 100_000}))

    async def _refused(self, make: Any, limit: int = 1_000) -> None:
        async def answer(_request: web.Request) -> web.StreamResponse:
            return cast("web.StreamResponse", make())

        async with serving(answer) as server, going_out(server.address, max_response_bytes=limit) as egress:
            with pytest.raises(ResponseTooLarge) as failed:
                await egress.request("GET", server.url())
        assert not failed.value.retryable

    @pytest.mark.parametrize(
        "headers",
        [
            {"X": "a\r\nInjected: 1"},
            {"X\r\nInjected": "1"},
            {"X": "a\0"},
            {"": "1"},
            {"Host": "inside"},
            {"Content-Length": "9"},
            {"Transfer-Encoding": "chunked"},
            {f"X-{number}": "1" for number in range(101)},
        ],
    )
    async def test_headers_that_would_bend_the_request_are_refused(self, headers: dict[str, str]) -> None:
        async with serving() as server, going_out(server.address) as egress:
            with pytest.raises(InputInvalid):
                await egress.request("GET", server.url(), headers=headers)
        assert server.arrivals == []

    @pytest.mark.parametrize("method", ["CONNECT", "TRACE", "get", "GET / HTTP/1.1\r\n", ""])
    async def test_a_method_that_is_none_is_refused(self, method: str) -> None:
        async with going_out() as egress:
            with pytest.raises(InputInvalid):
                await egress.request(method, "http://8.8.8.8/")

    async def test_cookies_of_one_call_do_not_reach_the_next(self) -> None:
        async def answer(_request: web.Request) -> web.StreamResponse:
            return web.Response(headers={"Set-Cookie": "session=1; Path=/"})

        async with serving(answer) as server, going_out(server.address) as egress:
            await egress.request("GET", server.url())
            await egress.request("GET", server.url())
        assert "cookie" not in server.arrivals[1].headers

    async def test_many_calls_run_side_by_side(self) -> None:
        everyone, released = 200, asyncio.Event()
        waiting = 0

        async def answer(_request: web.Request) -> web.StreamResponse:
            nonlocal waiting
            waiting += 1
            if waiting == everyone:
                released.set()
            await released.wait()
            return web.Response()

        async with serving(answer) as server, going_out(server.address) as egress, asyncio.TaskGroup() as group:
            for _ in range(everyone):
                group.create_task(egress.request("GET", server.url()))


def forget_addresses(egress: Egress) -> None:
    """Has the connector ask for names again, as it does by itself after some seconds."""
    session = egress._session
    assert session is not None
    assert isinstance(session.connector, TCPConnector)
    session.connector.clear_dns_cache()


def test_a_local_server_tells_its_address() -> None:
    assert LocalServer(80).url("/x") == "http://127.0.0.1:80/x"
