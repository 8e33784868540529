"""Group commit for publishers: what gathers while the last batch is in flight goes as the next one.

Decides: who shares a commit; one batch in flight a topic, no timers; how much may wait.
Leaves: what a batch is on the wire to the adapter. Holds: the callers of a batch all learn how it ended.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from chassis.errors import Unavailable
from chassis.log.port import OutRecord, check_sizes

MAX_WAITING_BYTES = 64 * 1024 * 1024
MAX_SENT_RECORDS = 5000
MAX_SENT_BYTES = 4 * 1024 * 1024

Send = Callable[[str, list[OutRecord]], Awaitable[None]]


class Gatherer:
    """The publishers of one topic."""

    def __init__(self, topic: str, send: Send) -> None:
        self._topic = topic
        self._send = send
        self._waiting: list[tuple[Sequence[OutRecord], int, asyncio.Future[None]]] = []
        self._waiting_bytes = 0
        self._task: asyncio.Task[None] | None = None

    async def publish(self, records: Sequence[OutRecord]) -> None:
        """Return when the batch with these records is committed; raise what it raised."""
        size = check_sizes(self._topic, records)
        if not records:
            return
        if self._waiting_bytes + size > MAX_WAITING_BYTES:
            raise Unavailable(
                "LOG_BUSY",
                f"Topic {self._topic} takes records in more slowly than they come. Repeat in a moment.",
                retry_after_s=1.0,
            )
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((records, size, done))
        self._waiting_bytes += size
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"log-publisher-{self._topic}")
        await done

    async def close(self) -> None:
        """Send what waits, then return."""
        if self._task is not None:
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        try:
            while self._waiting:
                records, callers = self._next_batch()
                if not records:
                    continue
                await self._send_for(records, callers)
        finally:
            self._task = None
            for _, _, done in self._waiting:  # only when this task itself was cancelled
                done.cancel()
            self._waiting.clear()
            self._waiting_bytes = 0

    def _next_batch(self) -> tuple[list[OutRecord], list[asyncio.Future[None]]]:
        """Take the oldest callers, whole, up to the size of a batch; those who gave up are left out."""
        records: list[OutRecord] = []
        callers: list[asyncio.Future[None]] = []
        taken = size = 0
        for theirs, their_size, done in self._waiting:
            if records and (len(records) + len(theirs) > MAX_SENT_RECORDS or size + their_size > MAX_SENT_BYTES):
                break
            taken += 1
            self._waiting_bytes -= their_size
            if done.cancelled():
                continue
            records.extend(theirs)
            callers.append(done)
            size += their_size
        del self._waiting[:taken]
        return records, callers

    async def _send_for(self, records: list[OutRecord], callers: list[asyncio.Future[None]]) -> None:
        try:
            await self._send(self._topic, records)
        except asyncio.CancelledError:
            for done in callers:
                done.cancel()
            raise
        except Exception as error:  # noqa: BLE001  # not swallowed: every caller of the batch gets it
            for done in callers:
                if not done.done():
                    done.set_exception(error)
        else:
            for done in callers:
                if not done.done():
                    done.set_result(None)
