"""Each safeguard of the heart, taken away: then a schedule must break. What breaks nothing protects nothing."""

from __future__ import annotations

import asyncio

import pytest

from services.executor.active import ActiveRun
from services.executor.flush import Flusher
from tests.simulation.scenario import Schedule
from tests.simulation.sim_log import SimLog
from tests.simulation.sim_store import Mutations

SEEDS = range(1, 400)


def broken_promises(mutations: Mutations) -> list[str]:
    """The first promises that break among the seeds; empty if none does."""
    for seed in SEEDS:
        outcome = Schedule(seed, mutations).run()
        if outcome.broken:
            return outcome.broken
    return []


def test_without_the_barrier_an_effect_arrives_before_its_start_is_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_barrier(self: Flusher, run: ActiveRun, after: int) -> None:
        pass

    monkeypatch.setattr(Flusher, "durable", no_barrier)
    assert any(promise.startswith("I4") for promise in broken_promises(Mutations()))


def test_without_the_incarnation_check_a_fenced_executor_goes_on() -> None:
    assert any(promise.startswith(("I3", "I8", "stuck")) for promise in broken_promises(Mutations(no_fence=True)))


class MadeAnew(Schedule):
    """An executor stalls with a flush under way.

    Its group expels it, the topic is made anew, and then its flush arrives.
    """

    async def _course(self) -> None:
        self.log = SimLog()
        self.trouble = 0.0
        self._start(0, 2)
        await asyncio.sleep(0.1)
        delivered_twice = self.accept("count")
        stalled, store = self.processes[0]
        store.stalled_until = self.loop.now + 2.0
        self.log.append(delivered_twice, 0)
        await asyncio.sleep(0.05)
        self._start(1, 2)
        self.log.append(delivered_twice, 1)
        await asyncio.sleep(1.0)
        assert self._at_rest(), "the second delivery was to be stored by the other executor"
        self.log.make_anew()
        self.log.expel(self.log.members[0])
        await asyncio.sleep(1.5)  # the stalled flush arrives now
        self.processes[1][0].cancel()
        stalled.cancel()
        self.log.append(self.accept("count"), 0)
        self._start(1, 1)
        await asyncio.sleep(20.0)
        self.processes[1][0].cancel()


def test_without_the_position_check_a_late_flush_skips_a_record_of_the_new_log() -> None:
    assert not MadeAnew(1).run().broken
    assert any(promise.startswith("I1") for promise in MadeAnew(1, Mutations(no_position_check=True)).run().broken)
