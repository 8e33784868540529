"""Takes queued runs in hand while there is room: runs that intake had no room for, and runs of incarnations that died.

Decides: how much room there is, and whose turn comes next. Leaves: the order inside the claim to claim_v1.sql.
Holds: I3 and I4 for runs that change hands: they go on from their journal alone (`Machine.recover`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import structlog

from chassis.clock import Clock
from chassis.errors import Unavailable
from services.executor.active import ActiveRun, ActiveRuns
from services.executor.driver.driver import Driver
from services.executor.engine.journal import decode_chunk
from services.executor.engine.machine import Machine
from services.executor.engine.plan import Plan
from services.executor.flush import Flusher, PlainWrite
from services.executor.plans import BROKEN, Plans, Unrunnable, unrunnable
from services.executor.store import Claim, ClaimedRun, RunEnd, RunStatus, RunWrite, Store
from services.executor.surroundings import SurroundingsOf

AT_ONCE = 200
"""Most runs claimed by one statement."""
PER_PROJECT = 50
"""Most runs of one project among them."""
LOOK_S = 0.25
"""How often to look for queued runs when nobody says that there are any, in seconds."""

log = structlog.get_logger()


class Dispatcher:
    """Claims queued runs for one incarnation."""

    def __init__(
        self,
        store: Store,
        epoch: int,
        active: ActiveRuns,
        plans: Plans,
        flusher: Flusher,
        driver: Driver,
        clock: Clock,
        surroundings: SurroundingsOf,
        max_active: int,
    ) -> None:
        self._store = store
        self._epoch = epoch
        self._active = active
        self._plans = plans
        self._flusher = flusher
        self._driver = driver
        self._clock = clock
        self._surroundings = surroundings
        self._max_active = max_active
        self._wake = asyncio.Event()
        self._claim_no = 1
        self._unsure = False
        self._more = False
        self._served: str | None = None
        """The project whose turn was last."""

    def wake(self) -> None:
        """Something was queued."""
        self._wake.set()

    def room(self) -> None:
        """Runs ended. Looks only if more waited when it last looked: a look locks the row that every flush needs."""
        if self._more:
            self._wake.set()

    async def run(self) -> None:
        """Claim until cancelled. Raises Fenced."""
        while True:
            claimed = 0
            try:
                claimed = await self.claim_once()
            except Unavailable as error:
                log.warning("dispatch_waits", reason=error.message)
            if claimed:
                continue
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()
            except TimeoutError:
                pass  # look again
            self._wake.clear()

    async def claim_once(self) -> int:
        """Claim as many runs as there is room for, and start them; how many."""
        room = min(AT_ONCE, self._max_active - len(self._active))
        self._more = room <= 0
        if self._more:
            return 0
        claim = Claim(self._claim_no, self._unsure, room, PER_PROJECT, self._served)
        self._unsure = True  # until the answer is here, runs may be ours without our knowing
        claimed = await self._store.claim(self._epoch, claim)
        self._unsure = False
        self._claim_no += 1
        self._more = len(claimed) == room
        if claimed:
            self._served = last_served([run.identity.project_id for run in claimed], self._served)
            plans = await self._plans.get({run.identity.version_id for run in claimed})
            for run in claimed:
                self._take(run, plans.get(run.identity.version_id))
        return len(claimed)

    def _take(self, claimed: ClaimedRun, plan: Plan | None) -> None:
        now_ms = self._clock.now_ms()
        if plan is None:
            version_id = claimed.identity.version_id
            self._end(claimed, Unrunnable("VERSION_NOT_RUNNABLE", self._plans.why_not(version_id)))
            return
        try:
            entries = [entry for chunk in claimed.chunks for entry in decode_chunk(chunk)]
            machine, commands = Machine.recover(
                plan,
                claimed.identity.run_id,
                entries,
                now_ms,
                surroundings=self._surroundings(claimed.identity),
                taken_over=claimed.begun,
            )
        except Exception:  # one run that we fail at must not end the executor, again after every restart
            log.exception("run_broke", run_id=claimed.identity.run_id.hex(), flow_id=claimed.identity.flow_id)
            self._end(claimed, BROKEN)
            return
        if machine.status != "running":
            # Its end is in the journal, its row was not: nothing is left to do but to say so.
            status = RunStatus[machine.status.upper()]
            error = msgspec.msgpack.encode(machine.error) if machine.error is not None else None
            end = RunEnd(status, now_ms, machine.steps_finished, error)
            write = RunWrite(
                claimed.identity, False, len(claimed.chunks), None, status, claimed.started_at_ms or now_ms, end
            )
            self._flusher.write(PlainWrite(write))
            return
        run = ActiveRun(claimed.identity, plan, machine, claimed.started_at_ms or now_ms)
        run.stored = run.known = True
        run.next_chunk = len(claimed.chunks)
        self._active.add(run)
        self._driver.begin(run, commands)

    def _end(self, claimed: ClaimedRun, reason: Unrunnable) -> None:
        write = unrunnable(claimed.identity, [], len(claimed.chunks), self._clock.now_ms(), reason)
        self._flusher.write(PlainWrite(write))


def last_served(projects: Sequence[str], after: str | None) -> str:
    """Which of these projects had its turn last, when turns began behind `after` and went round."""
    return max(projects, key=lambda project: (after is not None and project <= after, project))
