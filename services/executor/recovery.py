"""Finds incarnations that fell silent and queues their runs, so that somebody alive goes on with them (I8).

Decides: silent means the same beat for SILENT_S of this process's own monotonic time, while the database answered. No
wall clocks are compared.
Leaves: fencing to take_over_v1 (it marks the row dead first, so the silent one can flush no more), going on to
dispatch.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from chassis.clock import Clock
from chassis.errors import Unavailable
from services.executor.store import Store

SILENT_S = 3.0
"""How long a beat must stand still, in seconds; an owner begins no effect after 2 s without a flush (flush.LEASE_S)."""
LOOK_S = 0.5
"""How often to look, in seconds."""
LONGEST_LOOK_S = 1.0
"""A look that took longer than this says nothing about anybody's silence: the database was slow, not they."""

log = structlog.get_logger()


class Recovery:
    """Watches the other incarnations. `queued` is called when runs were queued."""

    def __init__(self, store: Store, epoch: int, clock: Clock, queued: Callable[[], None]) -> None:
        self._store = store
        self._epoch = epoch
        self._clock = clock
        self._queued = queued
        self._seen: dict[int, tuple[int, float]] = {}
        self._last_look = clock.monotonic()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                await self.look()
            except Unavailable as error:
                self._seen.clear()
                log.warning("recovery_waits", reason=error.message)
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Look once; take over whoever was silent long enough."""
        asked = self._clock.monotonic()
        if asked - self._last_look > LOOK_S + LONGEST_LOOK_S:
            self._seen.clear()  # we ourselves stood still: nobody's silence was watched
        beats = {beat.epoch: beat.beat for beat in await self._store.beats() if beat.epoch != self._epoch}
        now = self._last_look = self._clock.monotonic()
        if now - asked > LONGEST_LOOK_S:
            self._seen.clear()
        self._seen = {epoch: seen for epoch, seen in self._seen.items() if epoch in beats}
        for epoch, beat in beats.items():
            seen_beat, since = self._seen.get(epoch, (None, now))
            if seen_beat != beat:
                self._seen[epoch] = (beat, now)
            elif now - since >= SILENT_S:
                await self._take_over(epoch, beat)

    async def _take_over(self, epoch: int, beat: int) -> None:
        queued = await self._store.take_over(epoch, beat)
        self._seen.pop(epoch, None)
        if queued is not None:
            log.warning("incarnation_taken_over", epoch=epoch, runs=queued)
            self._queued()
