"""A small HTTP server that flows call: it answers at once, or after 200 ms below /slow, and counts."""

from __future__ import annotations

import asyncio

from aiohttp import web


class Ledger:
    """Listens on a free port of the loopback while the context is open."""

    def __init__(self) -> None:
        self._arrivals = 0
        self._arrived = asyncio.Condition()
        self.port = 0

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Ledger:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        await request.read()
        async with self._arrived:
            self._arrivals += 1
            self._arrived.notify_all()
        if request.path.endswith("/slow"):
            await asyncio.sleep(0.2)
        return web.json_response({"ok": True})

    async def arrived(self, more: int) -> None:
        """Wait for that many more calls."""
        async with self._arrived, asyncio.timeout(60):
            wanted = self._arrivals + more
            await self._arrived.wait_for(lambda: self._arrivals >= wanted)
