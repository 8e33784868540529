"""The outside ledger: an HTTP server that writes down every effect call it gets, and answers as a real system would.

Decides: what is kept of a call (key, body, arrival, answer), and the moods of the outside world: a small delay, now and
then a 503 (the sender knows that nothing happened) or a connection that breaks (the sender knows nothing).
Leaves: what the calls mean to judge.py. Runs in a thread of its own, so that a busy test does not slow it down.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from aiohttp import web

DROPPED = 0
"""Stands for the status of a call whose connection was broken instead of answered."""


@dataclass(slots=True)
class Call:
    """One request that reached the outside world. Times are of the machine's monotonic clock, in seconds."""

    key: str
    body: bytes
    arrived: float
    status: int | None = None
    """What it was answered; None while it is not, or when the caller had gone before."""
    answered: float = 0.0


@dataclass(slots=True)
class Moods:
    """How the outside world behaves. At most `faults_each` calls with the same body fare badly, so that work ends."""

    delay_s: tuple[float, float] = (0.002, 0.03)
    refused: float = 0.0
    """Share of calls answered 503."""
    dropped: float = 0.0
    """Share of calls whose connection breaks after they were counted."""
    faults_each: int = 2


@dataclass(slots=True)
class Ledger:
    """`with Ledger(seed) as ledger:` listens on loopback; `calls` grows while it does."""

    seed: int
    moods: Moods = field(default_factory=Moods)
    calls: list[Call] = field(default_factory=list)
    port: int = 0
    _faults: Counter[bytes] = field(default_factory=Counter)
    _loop: asyncio.AbstractEventLoop | None = None
    _thread: threading.Thread | None = None
    _ended: asyncio.Event | None = None

    @property
    def url(self) -> str:
        """Where flows send their effects."""
        return f"http://127.0.0.1:{self.port}/effects"

    @property
    def address(self) -> str:
        """What an operator opens to flows."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)), name="ledger", daemon=True)
        self._thread.start()
        if not started.wait(30):
            raise TimeoutError("The ledger did not start.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._ended is not None:
            self._loop.call_soon_threadsafe(self._ended.set)
        if self._thread is not None:
            self._thread.join(30)

    async def _serve(self, started: threading.Event) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        chance = random.Random(self.seed)

        async def take(request: web.Request) -> web.Response:
            return await self._take(request, chance)

        app = web.Application()
        app.router.add_post("/effects", take)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port = runner.addresses[0][1]
            started.set()
            await self._ended.wait()
        finally:
            await runner.cleanup()

    async def _take(self, request: web.Request, chance: random.Random) -> web.Response:
        body = await request.read()
        call = Call(request.headers.get("Idempotency-Key", ""), body, time.monotonic())
        self.calls.append(call)
        number = len(self.calls)
        mood = self._mood(body, chance)
        await asyncio.sleep(chance.uniform(*self.moods.delay_s))
        call.status, call.answered = mood, time.monotonic()
        if mood == DROPPED and request.transport is not None:
            request.transport.abort()
        return web.json_response({"number": number}, status=mood or 500)

    def _mood(self, body: bytes, chance: random.Random) -> int:
        drawn = chance.random()
        if self._faults[body] >= self.moods.faults_each or drawn >= self.moods.refused + self.moods.dropped:
            return 200
        self._faults[body] += 1
        return 503 if drawn < self.moods.refused else DROPPED
