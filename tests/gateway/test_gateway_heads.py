"""Request lines and headers from nobody known: bounded in size and time before anything is asked of the application."""

import json
import socket
import time

import pytest

from gateway import heads
from tests.gateway.running_gateway import RunningGateway

LINE = b"GET /healthz HTTP/1.1\r\nhost: x\r\n"


def connected(gateway: RunningGateway) -> socket.socket:
    host, port = gateway.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def answer_to(gateway: RunningGateway, *parts: bytes) -> tuple[int, dict[str, str]]:
    """Status and problem of what was sent, the connection closed by the other side."""
    with connected(gateway) as raw:
        for part in parts:
            raw.sendall(part)
        got = b""
        while part := raw.recv(65536):
            got += part
    head, _, body = got.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), json.loads(body)


def test_a_head_over_the_limit_is_431(gateway: RunningGateway) -> None:
    status, problem = answer_to(gateway, LINE + b"x: " + b"a" * (heads.MAX_HEAD_BYTES - len(LINE) - 3), b"aa")
    assert (status, problem["reason"]) == (431, "HEAD_TOO_LARGE")


CHUNKED = b"POST /api/v1/auth/sign-in HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (LINE + b"x: ", b"a" * 10_000),
        (LINE, b"x: y\r\n" * 1000),
        (b"GET /", b"a" * 10_000),
        (CHUNKED + b"1\r\n{\r\n0\r\nx: ", b"a" * 10_000),
        (CHUNKED + b"1;", b"a" * 10_000),
    ],
    ids=["a header", "headers", "a path", "a trailer", "an extension of a chunk"],
)
def test_what_never_ends_is_cut_off(gateway: RunningGateway, begin: bytes, more: bytes) -> None:
    with connected(gateway) as raw:
        raw.sendall(begin)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(10_000):  # 100 MB
                raw.sendall(more)


def test_a_large_head_and_body_within_the_limits_pass(gateway: RunningGateway) -> None:
    body = b'{"email": "nobody@example.org", "password": "' + b"x" * 900 + b'"}'
    for kept in (100_000, 10):  # and another request on a connection may have a head of its own
        answer = gateway.client().post(
            "/api/v1/auth/sign-in",
            content=body,
            headers={"x-long": "a" * kept, "content-type": "application/json"},
        )
        assert answer.status_code == 401, answer.text


def test_a_head_that_does_not_arrive_is_408(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "HEAD_WITHIN_S", 0.3)
    for part in (b"", b"\r\n", b"GET /hea", LINE):
        status, problem = answer_to(gateway, part)
        assert (status, problem["reason"]) == (408, "HEAD_TOO_SLOW")
    with connected(gateway) as raw:  # between two requests that is up to keep-alive
        for _ in range(2):
            raw.sendall(LINE + b"\r\n")
            time.sleep(0.5)
            assert raw.recv(4096).startswith(b"HTTP/1.1 200")


def test_what_is_no_http_is_answered_with_a_problem(gateway: RunningGateway) -> None:
    framing = b"POST /api/v1/auth/sign-in HTTP/1.1\r\nhost: x\r\ntransfer-encoding: "
    broken = (
        framing + b"xchunked\r\n\r\n{}",
        framing + b"chunked\r\n\r\nno size\r\n",
        framing + b"chunked\r\n\r\n1\r\n{}\r\n",
    )
    for odd in (
        *broken,
        b"\x16\x03\x01\x00\xa5\x01\x00\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        LINE + b"a\nb: c\r\n\r\n",
    ):
        status, problem = answer_to(gateway, odd)
        assert (status, problem["reason"]) == (400, "HTTP_MALFORMED")
