"""Waiting until consumers have taken a change: publish, enable, disable and delete answer after it.

Decides: what counts as settled, who must have reported, how long a call waits.
Leaves: what a report changes to publishing.py.
"""

from __future__ import annotations

import asyncio
from uuid import UUID

from chassis.clock import Clock
from chassis.database import Database
from services.flows import live_store
from services.flows.flow_store import FlowRow, State

CONSUMERS = frozenset({"webhooks"})
"""Who must have applied a change before it counts; each reports under its name."""
LOOK_S = 0.1
"""How often a waiting call looks for reports that another replica of this service received, in seconds."""


class Settling:
    """The calls of this process that wait."""

    def __init__(self, database: Database, clock: Clock, wait_s: float) -> None:
        self._database = database
        self._clock = clock
        self._wait_s = wait_s
        self._news = asyncio.Event()

    def tell(self) -> None:
        """A report came in: let those who wait look again."""
        self._news.set()
        self._news = asyncio.Event()

    async def settled(self, flow_id: UUID) -> FlowRow | None:
        """The flow once its last change was applied or refused, or as it stands after the limit; None if unknown."""
        deadline = self._clock.monotonic() + self._wait_s
        while True:
            news = self._news  # taken before the look, so that a report between look and wait is not missed
            found = await live_store.progress(self._database, flow_id)
            left_s = deadline - self._clock.monotonic()
            if found is None or _is_settled(*found) or left_s <= 0:
                return found[0] if found else None
            await _waited(news, min(LOOK_S, left_s))


def _is_settled(flow: FlowRow, applied: frozenset[str]) -> bool:
    if flow.state == State.DISABLED:  # also when deleted; what was never published has nothing to take down
        return flow.newest_version_id is None or applied >= CONSUMERS
    return flow.state != State.ENABLING


async def _waited(news: asyncio.Event, at_most_s: float) -> None:
    try:
        async with asyncio.timeout(at_most_s):
            await news.wait()
    except TimeoutError:
        return
