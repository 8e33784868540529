"""The one way out: HTTP calls of pieces and code, guarded.

Decides: how a call is made, bounded and told apart when it fails; that an address is judged when it is connected to.
Leaves: which addresses are open to egress_rules.py; retries to the step's policy.
Holds: no call reaches an address that `Gate` did not open. Three places ask it: each URL before it is called, redirects
included; the resolver, which hands aiohttp only open addresses, so that a name cannot change between check and connect;
and the socket itself, whatever came before it. A request leaves at most once a call: aiohttp's own second try is off,
because a repetition is decided by the journal (I4) and by nobody else.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self

import aiohttp
import multidict
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult
from millrace_sdk import (
    DEFAULT_TIMEOUT,
    ActionFailed,
    ConnectFailed,
    ConnectionLost,
    EgressBlocked,
    InputInvalid,
    Response,
    ResponseTooLarge,
    TimedOut,
)

from services.executor.egress_rules import AllowList, Gate, same_origin, shown

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HARMLESS_HEADERS = frozenset({"accept", "accept-language", "content-type", "user-agent", "idempotency-key"})
_OUR_HEADERS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect"}
)
_HEADER_NAME = re.compile(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
_OVER_HEADER_LIMITS = ("Got more than", "Too many headers")  # aiohttp tells these from other bad answers by text alone
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

AddrInfo = tuple[
    int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[str, int] | tuple[str, int, int, int]
]


@dataclass(frozen=True, slots=True)
class EgressSettings:
    """What an operator can set. `allow`: `host:port` or networks opened besides the public internet."""

    allow: Sequence[str] = ()
    public_url: str = ""
    """Where Millrace itself is reached; its webhooks below it are open to flows."""
    max_response_bytes: int = 5 * 1024 * 1024
    """After decompression."""
    max_response_headers: int = 100
    max_request_headers: int = 100
    max_connections: int = 10_000
    max_connections_per_host: int = 0
    """0: as many as there are connections."""
    connect_timeout_s: float = 10.0
    keepalive_s: float = 4.0
    """Below the 5 s after which common servers (Node, uvicorn) close, so that no call meets a connection that is going.
    """


class AddressRefused(OSError):  # noqa: N818 - the address was refused, by us
    """A name led to an address that is not open; an OSError, so that aiohttp hands it through as the cause."""


class GuardedResolver(AbstractResolver):
    """Hands on only the addresses that may be connected to, and remembers those that an open name led to."""

    def __init__(self, inner: AbstractResolver, gate: Gate, opened: set[tuple[str, int]]) -> None:
        self._inner = inner
        self._gate = gate
        self._opened = opened

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The open addresses of a name. Raises AddressRefused when it has addresses, and none is open."""
        found = await self._inner.resolve(host, port, family)
        if self._gate.opens_name(host, port):
            self._opened.update((result["host"], port) for result in found)
            return found
        usable = [result for result in found if self._gate.opens_address(result["host"], port)]
        if found and not usable:
            raise AddressRefused(f"{host} leads to {found[0]['host']}, which is not a public address")
        return usable

    async def close(self) -> None:
        """Closes the resolver inside."""
        await self._inner.close()


class Egress:
    """The guarded HTTP client of an executor; implements `millrace_sdk.Http`. Open it with `async with`.

    One session for all calls of the process; 10,000 may be in flight. `resolver` is for tests of what names lead to.
    """

    def __init__(self, settings: EgressSettings, *, resolver: AbstractResolver | None = None) -> None:
        self._settings = settings
        self._gate = Gate(AllowList.parse(settings.allow), settings.public_url)
        self._opened: set[tuple[str, int]] = set()
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None
        self.in_flight = 0
        """Calls that have begun and not ended, for metrics."""

    async def __aenter__(self) -> Self:
        resolver = self._resolver or aiohttp.ThreadedResolver()
        connector = aiohttp.TCPConnector(
            resolver=GuardedResolver(resolver, self._gate, self._opened),
            socket_factory=self._open_socket,
            limit=self._settings.max_connections,
            limit_per_host=self._settings.max_connections_per_host,
            keepalive_timeout=self._settings.keepalive_s,
        )
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "Millrace"},
            skip_auto_headers=("Content-Type",),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._settings.connect_timeout_s),
            trust_env=False,
            max_headers=self._settings.max_response_headers,
        )
        session._retry_connection = False  # aiohttp offers no public switch; tests hold it to one arrival a call
        self._session = session
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout: timedelta = DEFAULT_TIMEOUT,  # noqa: ASYNC109 - the limit is part of the port's promise
        max_redirects: int = 5,
    ) -> Response:
        """Call an outside system; see `millrace_sdk.Http.request`."""
        call = _Call(_checked_method(method), _parsed(url), self._checked_headers(headers or {}), body)
        self.in_flight += 1
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                return await self._follow(call, max_redirects)
        except TimeoutError as error:
            seconds = timeout.total_seconds()
            raise TimedOut(f"{call.method} {shown(call.url)} took longer than {seconds:g} s.") from error
        finally:
            self.in_flight -= 1

    async def _follow(self, call: _Call, max_redirects: int) -> Response:
        for _ in range(max_redirects + 1):
            self._gate.check(call.url)
            response = await self._once(call)
            location = response.headers.get("location")
            if max_redirects == 0 or response.status not in _REDIRECTS or location is None:
                return response
            call = call.redirected(response.status, location)
        raise ActionFailed(
            "TOO_MANY_REDIRECTS", f"More than {max_redirects} redirects; the last one led to {shown(call.url)}."
        )

    async def _once(self, call: _Call) -> Response:
        if self._session is None:
            raise RuntimeError("Egress is not open; use `async with`")
        try:
            async with self._session.request(
                call.method, call.url, headers=call.headers, data=call.body, allow_redirects=False
            ) as answer:
                return await self._read(answer, call)
        except (aiohttp.ClientError, aiohttp.ServerTimeoutError) as error:
            raise _translated(error, call) from error

    async def _read(self, answer: aiohttp.ClientResponse, call: _Call) -> Response:
        limit = self._settings.max_response_bytes
        if call.method != "HEAD" and (answer.content_length or 0) > limit:
            answer.close()
            raise ResponseTooLarge(
                f"{shown(call.url)} answers with {answer.content_length} bytes; {limit} are allowed."
            )
        chunks: list[bytes] = []
        size = 0
        async for chunk in answer.content.iter_chunked(64 * 1024):
            size += len(chunk)
            if size > limit:
                answer.close()
                raise ResponseTooLarge(f"{shown(call.url)} answers with more than {limit} bytes, which is the limit.")
            chunks.append(chunk)
        return Response(answer.status, _joined(answer.headers), b"".join(chunks), str(answer.url))

    def _open_socket(self, info: AddrInfo) -> socket.socket:
        family, kind, protocol, _, target = info
        address, port = str(target[0]), int(target[1])
        # A name's addresses were remembered by the resolver; Millrace's own may be an address itself, never resolved.
        opened = (address, port) in self._opened or self._gate.opens_name(address, port)
        if not opened and not self._gate.opens_address(address, port):
            raise AddressRefused(f"{address} is not a public address")
        return socket.socket(family, kind, protocol)

    def _checked_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        if len(headers) > self._settings.max_request_headers:
            raise InputInvalid(
                f"{len(headers)} headers; {self._settings.max_request_headers} are allowed.", field="headers"
            )
        for name, value in headers.items():
            if not _HEADER_NAME.match(name):
                raise InputInvalid(f"{name!r} is no name of a header.", field="headers")
            if name.lower() in _OUR_HEADERS:
                raise InputInvalid(f"Header {name} is set by Millrace itself; remove it.", field=f"headers.{name}")
            if _CONTROL.search(value):
                raise InputInvalid(
                    f"Header {name} contains a line break or control character.", field=f"headers.{name}"
                )
        return dict(headers)


@dataclass(frozen=True, slots=True)
class _Call:
    """One request as it goes out."""

    method: str
    url: yarl.URL
    headers: dict[str, str]
    body: bytes | None

    def redirected(self, status: int, location: str) -> _Call:
        """What a redirect asks for: 307 and 308 repeat the call, others fetch; elsewhere only harmless headers go."""
        try:
            target = self.url.join(yarl.URL(location))
        except ValueError as error:
            raise ActionFailed("BAD_RESPONSE", f"{shown(self.url)} redirects to something that is no URL.") from error
        method, body, headers = self.method, self.body, self.headers
        if status not in (307, 308) and method not in ("GET", "HEAD"):
            method, body = "GET", None
            headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
        if not same_origin(self.url, target):
            headers = {name: value for name, value in headers.items() if name.lower() in _HARMLESS_HEADERS}
        return _Call(method, target, headers, body)


def _checked_method(method: str) -> str:
    if method not in METHODS:
        raise InputInvalid(
            f"{method!r} is no method that can be called; there are {', '.join(sorted(METHODS))}.", field="method"
        )
    return method


def _parsed(url: str) -> yarl.URL:
    if not isinstance(url, str):
        raise InputInvalid(f"The URL must be a text, it is {type(url).__name__}.", field="url")
    if _CONTROL.search(url) or url != url.strip():
        raise InputInvalid("The URL contains a line break, a control character or space around it.", field="url")
    try:
        return yarl.URL(url)
    except ValueError as error:
        raise InputInvalid(f"The URL cannot be read: {error}.", field="url") from error


def _joined(headers: multidict.CIMultiDictProxy[str]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in headers.items():
        key = name.lower()
        joined[key] = f"{joined[key]}, {value}" if key in joined else value
    return joined


def _translated(error: Exception, call: _Call) -> ActionFailed:
    """Which of the SDK's failures an error of aiohttp is; what matters is whether anything can have been sent."""
    where = shown(call.url)
    if isinstance(error, aiohttp.ClientConnectorError):
        if isinstance(error.os_error, AddressRefused):
            return EgressBlocked(f"{where} cannot be called: {error.os_error}. An operator can open it to flows.")
        return ConnectFailed(f"No connection to {where}: {error.os_error.strerror or error.os_error}.")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return ConnectFailed(f"No connection to {where} within the time for connecting.")
    if isinstance(error, aiohttp.InvalidURL):
        return InputInvalid(f"The URL cannot be called: {where}", field="url")
    if isinstance(error, aiohttp.ClientResponseError):
        if error.message.startswith(_OVER_HEADER_LIMITS):
            return ResponseTooLarge(f"{where} answers with more or longer headers than allowed.")
        return ActionFailed("BAD_RESPONSE", f"{where} answers with something that is not HTTP.", outcome_unknown=True)
    return ConnectionLost(f"The connection to {where} broke before the whole answer came: {type(error).__name__}.")
