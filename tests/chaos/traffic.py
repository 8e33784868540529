"""Senders of webhooks who behave as senders do: some wait for the answer, some repeat with a key until they are heard.

Decides: who sends what and how often, and what each was told.
Leaves: what must have come of it to judge.py.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

AGAIN_S = 0.2
"""Pause before an event with a key is sent again, in seconds."""


@dataclass(slots=True)
class Sent:
    """One event, and what its sender was told."""

    id: str
    items: int
    keyed: bool
    """Sent again under the same key until it is accepted."""
    sync: bool
    accepted: str = ""
    """The run that the sender was told of; empty: nobody said that the event was accepted."""
    answer: Any = None
    """The answer of the run, for those who waited."""
    statuses: list[int] = field(default_factory=list)
    """0: the connection broke."""


class Traffic:
    """`async with Traffic(url, flow, ledger.url, seed) as traffic:` sends all the while; `sent` is the history.

    Leaving lets every sender end what it began: those with a key are heard in the end.
    """

    def __init__(self, url: str, flow_id: str, ledger: str, seed: int, senders: int = 6, pause_s: float = 0.2) -> None:
        self.sent: list[Sent] = []
        self._url = url
        self._path = f"/api/v1/webhooks/{flow_id}"
        self._ledger = ledger
        self._seed = seed
        self._senders = senders
        self._pause_s = pause_s
        self._ending = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._send(number)) for number in range(self._senders)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        if kind is not None:
            for task in self._tasks:
                task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=kind is not None)
        self._tasks = [] if ended else self._tasks

    async def _send(self, number: int) -> None:
        chance = random.Random(f"{self._seed}/{number}")
        async with httpx.AsyncClient(base_url=self._url, timeout=60) as client:
            while not self._ending.is_set():
                event = Sent(
                    f"{number}-{len(self.sent)}-{chance.getrandbits(32):08x}",
                    items=chance.randrange(6),
                    keyed=chance.random() < 0.6,
                    sync=chance.random() < 0.3,
                )
                self.sent.append(event)
                await self._deliver(client, event)
                with suppress(TimeoutError):
                    async with asyncio.timeout(chance.uniform(0, 2 * self._pause_s)):
                        await self._ending.wait()

    async def _deliver(self, client: httpx.AsyncClient, event: Sent) -> None:
        while True:
            await self._once(client, event)
            if event.accepted or not event.keyed:
                return
            await asyncio.sleep(AGAIN_S)

    async def _once(self, client: httpx.AsyncClient, event: Sent) -> None:
        headers = {"x-event-id": event.id} if event.keyed else {}
        body = {"id": event.id, "items": event.items, "ledger": self._ledger}
        try:
            response = await client.post(self._path + "/sync" * event.sync, json=body, headers=headers)
        except httpx.TransportError:
            event.statuses.append(0)
            return
        event.statuses.append(response.status_code)
        if response.status_code == 200:
            event.accepted = response.headers["x-millrace-run-id"]
            event.answer = response.json() if event.sync else None
