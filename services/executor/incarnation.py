"""One life of an executor: an epoch, the runs in its hands, and the loops that work on them.

Decides: how intake, flush, dispatch and recovery hang together, and what happens once a flush has committed.
Leaves: each of those to its own module. When this incarnation is fenced, the process ends: a fresh one under a new
epoch has nothing to unlearn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from chassis.clock import Clock
from chassis.errors import Unavailable
from chassis.log.port import Log
from services.executor.active import ActiveRun, ActiveRuns
from services.executor.dispatch import Dispatcher
from services.executor.driver.actions import Actions
from services.executor.driver.connections import Connections
from services.executor.driver.driver import Driver
from services.executor.engine.commands import Answer
from services.executor.flush import Flusher
from services.executor.intake import TOPIC, Intake, PayloadFiles
from services.executor.plans import Plans
from services.executor.positions import Positions
from services.executor.recovery import Recovery
from services.executor.sandbox import Sandbox
from services.executor.store import Store
from services.executor.surroundings import SurroundingsOf

log = structlog.get_logger()

Told = Callable[[Sequence[ActiveRun]], None]
AnswerSent = Callable[[ActiveRun, Answer], None]


class Incarnation:
    """Works on runs until it is cancelled or fenced."""

    def __init__(
        self,
        *,
        epoch: int,
        store: Store,
        log_: Log,
        clock: Clock,
        plans: Plans,
        sandbox: Sandbox,
        actions: Actions,
        connections: Connections,
        files: PayloadFiles,
        answer: AnswerSent,
        told: Told,
        surroundings: SurroundingsOf,
        max_active: int,
    ) -> None:
        self.epoch = epoch
        self.active = ActiveRuns()
        self._store = store
        self._feeding: list[asyncio.Task[None]] = []
        self._answer = answer
        self._told = told
        self._positions = Positions(TOPIC)
        self.flusher = Flusher(store, epoch, clock, self._positions, self._settled, self._rejected)
        self._driver = Driver(self.flusher, sandbox, actions, connections, clock)
        self.dispatcher = Dispatcher(
            store, epoch, self.active, plans, self.flusher, self._driver, clock, surroundings, max_active
        )
        self.intake = Intake(
            log_,
            store,
            self.active,
            plans,
            files,
            self.flusher,
            self._driver,
            self._positions,
            clock,
            surroundings,
            max_active,
        )
        self.recovery = Recovery(store, epoch, clock, self.dispatcher.wake)

    async def run(self) -> None:
        """Work until cancelled. Raises Fenced when somebody took over."""
        log.info("incarnation_begins", epoch=self.epoch)
        try:
            async with asyncio.TaskGroup() as loops:
                loops.create_task(self.flusher.run())
                feeding = (self.dispatcher.run(), self.intake.run(), self.recovery.run())
                self._feeding = [loops.create_task(feed) for feed in feeding]
        finally:
            for run in self.active.all():
                run.drop()

    async def run_until_stopped(self, drain_s: float) -> None:
        """Work until cancelled, then hand the runs over. Raises Fenced when somebody took over."""
        working = asyncio.ensure_future(self.run())
        try:
            await asyncio.shield(working)
        except asyncio.CancelledError:
            if not working.done():
                await self.hand_over(drain_s)
            raise
        finally:
            working.cancel()
            await asyncio.wait({working})

    async def hand_over(self, within_s: float) -> None:
        """Take in nothing more, let calls under way end, write what they did, and leave the runs to whoever comes."""
        for task in self._feeding:
            task.cancel()
        self._driver.park()
        try:
            async with asyncio.timeout(within_s):
                await self._driver.calls_ended()
                await self.flusher.write_all(self.active.all())
                queued = await self._store.hand_over(self.epoch)
                log.info("incarnation_ends", epoch=self.epoch, runs=queued)
        except (TimeoutError, Unavailable) as error:
            log.warning("incarnation_cut_off", epoch=self.epoch, reason=str(error) or "calls took too long to end")

    def _settled(self, runs: Sequence[ActiveRun]) -> None:
        """What these runs wrote is durable now: answers may leave (I5), runs that ended may go."""
        ended = False
        for run in runs:
            if run.answer is not None and run.answer.after <= run.durable:
                answer, run.answer = run.answer, None
                if run.identity.reply_to:
                    self._answer(run, answer)
            if run.gone:
                self.active.remove(run)
                ended = True
        if ended:
            self.dispatcher.room()
        if runs:
            self._told(runs)

    def _rejected(self, run: ActiveRun) -> None:
        """The run id was stored before (I2): this is a second delivery, and nothing of it may go on."""
        self.active.remove(run)
