"""Progress of runs for those who watch: told after the commit (I3), in batches, to whoever listens now.

Decides: that nobody pays for watching where nobody watches, and that a slow reader loses the oldest and is told so.
Leaves: carrying it to the browser to the gateway. In a cluster the cache carries it from every executor to every one,
so that any of them can serve a watcher; a cache that is away costs progress, never a run.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import structlog
from millrace.executor.v1 import run_pb2 as pb

from chassis.cache import Cache, Lagged
from chassis.clock import Clock
from chassis.errors import Unavailable
from services.executor.active import ActiveRun
from services.executor.engine.view import describe
from services.executor.runs.messages import active_message, step_message

MARK_S = 30.0
"""How long a watched project stays marked, in seconds; renewed while somebody watches."""
BELIEVED_S = 2.0
"""How long an executor believes what it knows of a project's mark, in seconds."""
WAITING = 10_000
"""Progress that may wait to be told; the oldest is dropped."""
BATCH = 500

log = structlog.get_logger()


class Progress:
    """Tells of runs, and lets watch."""

    def __init__(self, cache: Cache, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock
        self._waiting: deque[tuple[str, pb.RunProgress]] = deque(maxlen=WAITING)
        self._marks: dict[str, tuple[float, bool]] = {}
        self._asked: set[str] = set()
        self._wake = asyncio.Event()

    def told(self, runs: Sequence[ActiveRun]) -> None:
        """What these runs wrote is durable. Costs a look-up a run where nobody watches."""
        now = self._clock.monotonic()
        for run in runs:
            project_id = run.identity.project_id
            until, watched = self._marks.get(project_id, (0.0, False))
            if until < now:
                self._asked.add(project_id)
                self._wake.set()
            if watched:
                steps = [step_message(step, with_documents=False) for step in describe(run.flushed)]
                message = active_message(run, str(UUID(bytes=run.identity.run_id)))
                self._waiting.append((project_id, pb.RunProgress(run=message, steps=steps)))
                self._wake.set()

    async def run(self) -> None:
        """Publish what waits, and keep the marks fresh, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._look()
                await self._publish()
            except Unavailable as error:
                self._waiting.clear()
                log.warning("progress_lost", reason=error.message)

    async def _look(self) -> None:
        asked, self._asked = self._asked, set()
        for project_id in asked:
            watched = await self._cache.get(_mark(project_id)) is not None
            self._marks[project_id] = (self._clock.monotonic() + BELIEVED_S, watched)

    async def _publish(self) -> None:
        batches: dict[str, list[pb.RunProgress]] = {}
        while self._waiting:
            project_id, progress = self._waiting.popleft()
            batches.setdefault(project_id, []).append(progress)
        for project_id, progress_of in batches.items():
            for start in range(0, len(progress_of), BATCH):
                message = pb.WatchRunsResponse(progress=progress_of[start : start + BATCH])
                await self._cache.publish(_channel(project_id), message.SerializeToString())

    async def watch(self, project_id: str, flow_id: str, run_id: str) -> AsyncIterator[pb.WatchRunsResponse]:
        """Progress of a project's runs from now on, of one flow or run when named. Raises: Unavailable CACHE_AWAY."""
        async with self._cache.subscribe(_channel(project_id)) as arriving, asyncio.TaskGroup() as group:
            marking = group.create_task(self._keep_marked(project_id))
            try:
                yield pb.WatchRunsResponse()  # tells the watcher that from here on nothing is missed
                async for message in arriving:
                    if isinstance(message, Lagged):
                        yield pb.WatchRunsResponse(dropped=max(1, message.missed))
                        continue
                    response = pb.WatchRunsResponse.FromString(message)
                    if chosen := [p for p in response.progress if _matches(p.run, flow_id, run_id)]:
                        yield pb.WatchRunsResponse(progress=chosen)
            finally:
                marking.cancel()

    async def _keep_marked(self, project_id: str) -> None:
        while True:
            await self._cache.set(_mark(project_id), b"1", MARK_S)
            self._marks.pop(project_id, None)
            await asyncio.sleep(MARK_S / 3)


def _matches(run: pb.Run, flow_id: str, run_id: str) -> bool:
    return flow_id in ("", run.flow_id) and run_id in ("", run.id)


def _mark(project_id: str) -> str:
    return f"watched:{project_id}"


def _channel(project_id: str) -> str:
    return f"runs:{project_id}"
