"""A small HTTP server on loopback that remembers what arrived, for the tests of going out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class LocalServer:
    """Where it listens, and what came."""

    port: int
    arrivals: list[Arrival] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    """For handlers that let requests wait."""

    @property
    def address(self) -> str:
        """As it stands in an allow-list."""
        return f"127.0.0.1:{self.port}"

    def url(self, path: str = "/") -> str:
        """The URL of a path."""
        return f"http://{self.address}{path}"


async def _ok(_request: web.Request) -> web.StreamResponse:
    return web.json_response({"ok": True})


@asynccontextmanager
async def serving(handler: Handler = _ok) -> AsyncIterator[LocalServer]:
    """A server that answers everything with `handler`."""
    server = LocalServer(0)

    async def recorded(request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        server.arrivals.append(Arrival(request.method, request.path_qs, headers, await request.read()))
        return await handler(request)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", recorded)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()


@asynccontextmanager
async def answering_raw(answer: bytes) -> AsyncIterator[int]:
    """A server that answers its first request with these bytes; its port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def breaking_on_second_request() -> AsyncIterator[tuple[int, list[bytes]]]:
    """Answers the first request, keeps the connection, and closes it without an answer after any further one."""
    arrivals: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                arrivals.append(await reader.readuntil(b"\r\n\r\n"))
            except asyncio.IncompleteReadError:
                break
            if len(arrivals) > 1:
                break
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], arrivals
    finally:
        server.close()
