"""`millrace up` under load, killed at random points and at named ones, and judged from outside.

`MILLRACE_CHAOS_SEED=7` repeats the choices of a run (not the machine's timing), `MILLRACE_CHAOS_KILLS=500` goes on for
longer. Times are printed, never asserted.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import time
from collections import Counter
from pathlib import Path

import pytest

from chassis.failpoints import recorded
from tests.chaos.flows import LOAD
from tests.chaos.installation import Installation, installation
from tests.chaos.judge import Death, Verdict, Witness, judge
from tests.chaos.ledger import Ledger, Moods
from tests.chaos.person import Person
from tests.chaos.processes import until
from tests.chaos.traffic import Traffic

KILLS = int(os.environ.get("MILLRACE_CHAOS_KILLS", "50"))
SEED = int(os.environ.get("MILLRACE_CHAOS_SEED") or random.randrange(1_000_000))
ROUGH = Moods(refused=0.03, dropped=0.02)
PIECES = {"executor": 36, "edge": 5, "postgres": 4, "everything": 4, "supervisor": 1}
"""How often each piece is killed, out of 50."""
POINTS = {
    "intake.taken": 12,
    "action.before_call": 40,
    "action.after_call": 70,
    "flush.before_commit": 150,
    "flush.committed": 260,
    "webhooks.before_publish": 15,
    "webhooks.published": 40,
}
"""Failpoint → at which time it is reached its process dies there."""

pytestmark = pytest.mark.slow


class Killer:
    """Kills pieces of an installation at random points, and looks at what is durable before they come back."""

    def __init__(self, target: Installation, ledger: Ledger, witness: Witness, chance: random.Random) -> None:
        self.deaths: list[Death] = []
        self.recovery_s: dict[str, list[float]] = {}
        self._target = target
        self._ledger = ledger
        self._witness = witness
        self._chance = chance

    async def kill(self, piece: str) -> None:
        """One death, at a random moment of work; returns when effects arrive again."""
        await self._calls(5)
        if piece == "executor" and self._chance.random() < 0.25:
            await self._once(piece)
            await self._young()  # again, while it takes up what it finds
        await self._once(piece)
        await self._recovered(piece)

    async def _once(self, piece: str) -> None:
        await _pause(self._chance.uniform(0, 0.5))
        self.deaths.append(Death(piece, time.monotonic()))
        print(f"{self.deaths[-1].at:.1f}: {piece} dies, {len(self._ledger.calls)} calls so far", flush=True)
        async with self._target.killed(piece):
            await self._witness.look()

    async def _young(self) -> None:
        await until("the executor is started again", lambda: self._target.pid("executor") is not None)
        await _pause(self._chance.uniform(0, 1.0))

    async def _recovered(self, piece: str) -> None:
        """Effects arrive, and nothing that lived at the death is still on its way: three deaths at one place are one
        too many for a run."""
        since = self.deaths[-1].at
        await self._calls(1)
        self.recovery_s.setdefault(piece, []).append(time.monotonic() - since)
        connection = await self._target.connect()
        try:
            living = await connection.fetch("SELECT run_id FROM executor.run_live")
        finally:
            await connection.close()
        await self._ended([row["run_id"] for row in living])

    async def _ended(self, living: list[object]) -> None:
        query = "SELECT count(*) FROM executor.run_live WHERE run_id = ANY($1)"
        while living:
            connection = await self._target.connect()
            try:
                if not await connection.fetchval(query, living):
                    return
            finally:
                await connection.close()
            await _pause(0.05)

    async def _calls(self, more: int) -> None:
        seen = len(self._ledger.calls)
        await until(f"{more} more calls reach the ledger", lambda: len(self._ledger.calls) >= seen + more)


async def _pause(seconds: float) -> None:

    await asyncio.sleep(seconds)


def _order(chance: random.Random) -> list[str]:
    """Which pieces to kill, one after the other."""
    deck = [piece for piece, share in PIECES.items() for _ in range(max(1, round(share * KILLS / 50)))]
    chance.shuffle(deck)
    return deck


def _check(verdict: Verdict, target: Installation) -> None:
    faults = verdict.faults()
    assert not faults, "\n".join([f"seed {SEED}: {verdict}", *faults[:40], target.said()])


async def test_whatever_is_killed_nothing_is_lost_or_repeated(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    print(f"\nseed {SEED}")
    with Ledger(SEED, ROUGH) as ledger:
        async with installation(ledger.address) as target, Person(target.url) as person:
            flow_id = await person.publish(LOAD)
            witness = Witness(target, ledger)
            killer = Killer(target, ledger, witness, chance)
            async with Traffic(target.url, flow_id, ledger.url, SEED) as traffic:
                for piece in _order(chance):
                    await killer.kill(piece)
            verdict = await judge(target, ledger, traffic.sent, witness, killer.deaths)
            print(f"kills {dict(Counter(death.piece for death in killer.deaths))}; {verdict}")
            for piece, seconds in killer.recovery_s.items():
                print(f"recovery after {piece}: median {statistics.median(seconds):.1f} s, worst {max(seconds):.1f} s")
            _check(verdict, target)
            shown = await person.statuses()
            assert all(shown.get(event.accepted) == "succeeded" for event in traffic.sent if event.accepted)
            assert await _counted(target) == verdict.runs, "the store piece counts each run exactly once"


async def _counted(target: Installation) -> int:
    connection = await target.connect()
    try:
        return int(await connection.fetchval("SELECT value FROM executor.store_entry WHERE key = 'total'"))
    finally:
        await connection.close()


async def test_deaths_at_named_places(tmp_path: Path) -> None:
    log = tmp_path / "reached"
    armed = {
        "MILLRACE_FAILPOINTS": ",".join(f"{name}=crash@{hit}" for name, hit in POINTS.items()),
        "MILLRACE_FAILPOINT_LOG": str(log),
    }
    with Ledger(SEED, ROUGH) as ledger:
        async with installation(ledger.address, armed) as target, Person(target.url) as person:
            flow_id = await person.publish(LOAD)
            witness = Witness(target, ledger)
            deaths: list[Death] = []
            async with Traffic(target.url, flow_id, ledger.url, SEED) as traffic:
                while not _all_reached(log):
                    deaths.append(Death("failpoint", time.monotonic()))  # one may be at any time
                    await witness.look()
                    await _pause(0.05)
            verdict = await judge(target, ledger, traffic.sent, witness, deaths)
            print(f"\nseed {SEED}; {verdict}")
            _check(verdict, target)
            assert target.said().count("SIGKILL") == len(POINTS), target.said()
            assert await _counted(target) == verdict.runs


def _all_reached(log: Path) -> bool:
    """Whether every point was reached so often that its process died there."""
    counts = recorded(str(log))
    return all(counts[name] >= hit for name, hit in POINTS.items())
