"""The http piece against a real server: what goes out, what comes back, what fails the step."""

from __future__ import annotations

import base64
import email.utils
import time
from typing import Any

import msgspec
import pytest
from aiohttp import web
from millrace_sdk import ActionFailed, InputInvalid, ResponseTooLarge

from pieces.http import piece
from pieces.http.request import retry_after_s
from tests.pieces.calling import called, context, outside


async def nothing(_request: web.Request) -> web.StreamResponse:
    return web.Response(status=204)


def answering(**response: Any) -> Any:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(**response)

    return answer


class TestRequest:
    async def test_a_json_body_goes_out_with_its_type_and_the_key_of_the_step(self) -> None:
        async with outside(nothing) as (server, ctx):
            body = {"sku": 7, "note": "größer", "tags": [True, None, 1.5]}
            output = await called(piece, "request", {"method": "POST", "url": server.url("/pick"), "body": body}, ctx)
        arrival = server.arrivals[0]
        assert msgspec.json.decode(arrival.body) == body
        assert arrival.headers["content-type"] == "application/json"
        assert arrival.headers["idempotency-key"] == "key-1"
        assert isinstance(output, dict)
        assert (output["status"], output["body"]) == (204, None)

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    async def test_a_look_up_carries_no_key_and_no_body(self, method: str) -> None:
        async with outside(nothing) as (server, ctx):
            await called(piece, "request", {"method": method, "url": server.url()}, ctx)
        assert "idempotency-key" not in server.arrivals[0].headers
        assert server.arrivals[0].body == b""

    async def test_headers_of_the_author_win_over_ours(self) -> None:
        async with outside(nothing) as (server, ctx):
            headers = {"idempotency-KEY": "mine", "Content-type": "application/vnd.x+json", "X-Count": 3, "X-On": True}
            await called(piece, "request", {"method": "PUT", "url": server.url(), "headers": headers, "body": 1}, ctx)
        sent = server.arrivals[0].headers
        assert (sent["idempotency-key"], sent["content-type"]) == ("mine", "application/vnd.x+json")
        assert (sent["x-count"], sent["x-on"]) == ("3", "true")

    async def test_query_is_added_to_what_the_url_has(self) -> None:
        async with outside(nothing) as (server, ctx):
            query = {"q": "a b&c", "ids": [1, 2], "none": None, "ok": False, "n": 2.0}
            await called(piece, "request", {"method": "GET", "url": server.url("/x?y=1"), "query": query}, ctx)
        assert server.arrivals[0].target == "/x?y=1&q=a+b%26c&ids=1&ids=2&ok=false&n=2"

    @pytest.mark.parametrize(
        ("body_type", "body", "sent", "content_type"),
        [
            ("text", "hello ö", "hello ö".encode(), "text/plain; charset=utf-8"),
            ("text", 7, b"7", "text/plain; charset=utf-8"),
            ("form", {"a": "1 2", "b": ["x", "y"]}, b"a=1+2&b=x&b=y", "application/x-www-form-urlencoded"),
            ("none", {"a": 1}, b"", None),
            ("json", None, b"", None),
            ("json", False, b"false", "application/json"),
        ],
    )
    async def test_bodies(self, body_type: str, body: object, sent: bytes, content_type: str | None) -> None:
        async with outside(nothing) as (server, ctx):
            document = {"method": "POST", "url": server.url(), "body_type": body_type, "body": body}
            await called(piece, "request", document, ctx)
        assert server.arrivals[0].body == sent
        assert server.arrivals[0].headers.get("content-type") == content_type

    async def test_authentication(self) -> None:
        async with outside(nothing) as (server, ctx):
            start = {"method": "GET", "url": server.url()}
            await called(piece, "request", {**start, "auth": "bearer", "token": "t"}, ctx)
            await called(piece, "request", {**start, "auth": "basic", "username": "ann", "password": "pä:ss"}, ctx)
        bearer, basic = (arrival.headers["authorization"] for arrival in server.arrivals)
        assert bearer == "Bearer t"
        assert base64.b64decode(basic.removeprefix("Basic ")).decode() == "ann:pä:ss"

    @pytest.mark.parametrize(
        "wrong",
        [
            {"method": "FETCH"},
            {"url": {"host": "x"}},
            {"url": ""},
            {"headers": {"X": ["a"]}},
            {"headers": []},
            {"query": {"a": {"b": 1}}},
            {"body_type": "form", "body": "a=1"},
            {"body_type": "form", "body": {"a": {"b": 1}}},
            {"body_type": "text", "body": {"a": 1}},
            {"auth": "bearer"},
            {"auth": "basic"},
            {"auth": "bearer", "token": "t", "headers": {"authorization": "x"}},
            {"timeout_s": 0},
            {"timeout_s": 601},
            {"timeout_s": "30"},
            {"fail_on_status": "no"},
            {"retries": 3},
        ],
    )
    async def test_an_input_that_cannot_work_is_refused_before_anything_leaves(self, wrong: dict[str, object]) -> None:
        with pytest.raises(InputInvalid):
            await called(piece, "request", {"method": "POST", "url": "http://8.8.8.8/", **wrong}, context())


class TestOutput:
    @pytest.mark.parametrize(
        ("content_type", "sent", "body"),
        [
            ("application/json; charset=utf-8", b'{"a": [1, 12345678901234567890]}', {"a": [1, 12345678901234567890]}),
            ("application/problem+json", b'{"status": 1}', {"status": 1}),
            ("application/json", b"not json", "not json"),
            ("application/json", b"", None),
            ("application/json", b"[" * 100_000, "[" * 100_000),
            ("text/plain; charset=latin-1", "größer".encode("latin-1"), "größer"),
            ("text/html; charset=none-such", b"x", "x"),
            ("application/octet-stream", "größer".encode(), "größer"),
        ],
    )
    async def test_a_body_is_parsed_where_it_is_json_and_text_where_it_is_text(
        self, content_type: str, sent: bytes, body: object
    ) -> None:
        async with outside(answering(body=sent, headers={"Content-Type": content_type})) as (server, ctx):
            output = await called(piece, "request", {"method": "GET", "url": server.url()}, ctx)
        assert isinstance(output, dict)
        assert output["body"] == body
        assert isinstance(output["headers"], dict)
        assert output["headers"]["content-type"] == content_type

    async def test_a_binary_body_comes_as_base64(self) -> None:
        async with outside(answering(body=b"\x89PNG\xff", content_type="image/png")) as (server, ctx):
            output = await called(piece, "request", {"method": "GET", "url": server.url()}, ctx)
        assert isinstance(output, dict)
        assert (output["body"], output["body_base64"]) == (None, base64.b64encode(b"\x89PNG\xff").decode())

    async def test_a_body_over_5_mib_fails(self) -> None:
        async with outside(answering(body=b"x" * (5 * 1024 * 1024 + 1))) as (server, ctx):
            with pytest.raises(ResponseTooLarge):
                await called(piece, "request", {"method": "GET", "url": server.url()}, ctx)

    async def test_a_redirect_is_the_answer_when_it_is_not_followed(self) -> None:
        async with outside(answering(status=302, headers={"Location": "/x"})) as (server, ctx):
            output = await called(
                piece, "request", {"method": "GET", "url": server.url(), "follow_redirects": False}, ctx
            )
        assert isinstance(output, dict)
        assert output["status"] == 302
        assert len(server.arrivals) == 1


class TestErrorStatuses:
    @pytest.mark.parametrize(
        ("status", "retryable", "unknown"),
        [
            (400, False, False),
            (401, False, False),
            (404, False, False),
            (409, False, False),
            (408, True, False),
            (425, True, False),
            (429, True, False),
            (500, True, False),
            (502, True, True),
            (503, True, False),
            (504, True, True),
        ],
    )
    async def test_an_error_status_fails_the_step(self, status: int, retryable: bool, unknown: bool) -> None:
        headers = {"Retry-After": "17"}
        async with outside(answering(status=status, text="why", headers=headers)) as (server, ctx):
            with pytest.raises(ActionFailed) as failed:
                await called(piece, "request", {"method": "POST", "url": server.url("/x?token=abc")}, ctx)
        failure = failed.value
        assert (failure.kind, failure.retryable, failure.outcome_unknown) == ("HTTP_STATUS", retryable, unknown)
        assert failure.retry_after_s == (17 if retryable else None)
        assert failure.details == {"status": status, "body": "why"}
        assert failure.message == f"POST {server.url('/x')} answered with status {status}."

    async def test_unless_the_author_wants_to_see_it(self) -> None:
        async with outside(answering(status=500, text="why")) as (server, ctx):
            output = await called(
                piece, "request", {"method": "GET", "url": server.url(), "fail_on_status": False}, ctx
            )
        assert isinstance(output, dict)
        assert (output["status"], output["body"]) == (500, "why")

    @pytest.mark.parametrize(
        ("header", "seconds"),
        [("0", 0), ("120", 120), ("-1", None), ("soon", None), ("", None), ("1" * 50, None), ("٣", None)],
    )
    def test_retry_after_in_seconds(self, header: str, seconds: float | None) -> None:
        assert retry_after_s(header) == seconds

    def test_retry_after_as_a_date(self) -> None:
        assert 3_000 < (retry_after_s(email.utils.formatdate(time.time() + 3_600, usegmt=True)) or 0) <= 3_601
        assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
