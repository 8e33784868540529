"""`millrace up` under load, killed at random moments and at named ones, and judged from outside.

`MILLRACE_CHAOS_SEED=7` repeats the choices of a course (not the machine's timing), `MILLRACE_CHAOS_KILLS=500` goes on
for longer. Times are printed, never asserted.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path

import pytest

from chassis.failpoints import recorded
from tests.backings.platform import Platform
from tests.chaos.flows import LOAD, STORY
from tests.chaos.installation import Installation, installation
from tests.chaos.judge import Death, Verdict, Witness, judge
from tests.chaos.killer import TWICE, Killer
from tests.chaos.ledger import Ledger, Moods
from tests.chaos.person import Person
from tests.chaos.processes import until
from tests.chaos.traffic import Sent, Traffic

KILLS = int(os.environ.get("MILLRACE_CHAOS_KILLS", "50"))
SEED = int(os.environ.get("MILLRACE_CHAOS_SEED") or random.randrange(1_000_000))
ROUGH = Moods(refused=0.03, dropped=0.02)
PIECES = {"executor": 26, "executor" + TWICE: 5, "edge": 5, "postgres": 4, "everything": 4, "supervisor": 1}
"""What is killed how often, for 50 kills."""
POINTS = {
    "intake.taken": ("executor", 12),
    "action.before_call": ("executor", 40),
    "action.after_call": ("executor", 70),
    "flush.before_commit": ("executor", 150),
    "flush.committed": ("executor", 260),
    "webhooks.before_publish": ("edge", 15),
    "webhooks.published": ("edge", 40),
}
"""Failpoint → the process that dies there, and at which time it is reached."""

pytestmark = pytest.mark.slow


def _check(verdict: Verdict, target: Installation) -> None:
    faults = verdict.faults()
    assert not faults, "\n".join([f"seed {SEED}: {verdict}", *faults[:40], target.said()])


async def _counted(target: Installation) -> int:
    """What the store piece counted."""
    connection = await target.connect()
    try:
        return int(await connection.fetchval("SELECT value FROM executor.store_entry WHERE key = 'total'"))
    finally:
        await connection.close()


async def test_whatever_is_killed_nothing_is_lost_or_repeated() -> None:
    chance = random.Random(SEED)
    pieces = [piece for piece, share in PIECES.items() for _ in range(max(1, round(share * KILLS / 50)))]
    chance.shuffle(pieces)
    with Ledger(SEED, ROUGH) as ledger:
        async with installation(ledger.address) as target, Person(target.url) as person:
            flow_id = await person.publish(LOAD)
            witness = Witness(target, ledger)
            killer = Killer(target, ledger, witness, chance)
            async with Traffic(target.url, flow_id, ledger.url, SEED) as traffic:
                for piece in pieces:
                    await killer.kill(piece)
            verdict = await judge(target, ledger, traffic.sent, witness, killer.deaths)
            print(f"\nseed {SEED}\n{killer}\n{verdict}")
            _check(verdict, target)
            shown = await person.statuses()
            assert all(shown.get(event.accepted) == "succeeded" for event in traffic.sent if event.accepted)
            assert await _counted(target) == verdict.runs, "the store piece counts each run exactly once"


async def test_deaths_at_named_places(tmp_path: Path) -> None:
    log = tmp_path / "reached"
    armed = {
        "MILLRACE_FAILPOINTS": ",".join(f"{name}=crash@{hit}" for name, (_, hit) in POINTS.items()),
        "MILLRACE_FAILPOINT_LOG": str(log),
    }
    with Ledger(SEED, ROUGH) as ledger:
        async with installation(ledger.address, Platform, **armed) as target, Person(target.url) as person:
            flow_id = await person.publish(LOAD)
            witness = Witness(target, ledger)
            async with Traffic(target.url, flow_id, ledger.url, SEED) as traffic:
                deaths = await _deaths_until_all_reached(target, witness, log)
            verdict = await judge(target, ledger, traffic.sent, witness, deaths)
            print(f"\nseed {SEED}; {verdict}")
            _check(verdict, target)
            assert target.platform.output.count("(SIGKILL)") == len(POINTS), target.said()
            assert await _counted(target) == verdict.runs


async def _deaths_until_all_reached(target: Installation, witness: Witness, log: Path) -> list[Death]:
    """Watches the processes die at the points, looking at what is durable all the while."""
    deaths: list[Death] = []
    seen = {piece: (target.pid(piece), time.monotonic()) for piece in ("executor", "edge")}
    deadline = time.monotonic() + 240
    while not _all_reached(log):
        assert time.monotonic() < deadline, f"never reached: {recorded(str(log))}"
        for piece, (pid, at) in seen.items():
            now, found = time.monotonic(), target.pid(piece)
            if found != pid and pid is not None:
                deaths.append(Death(piece, at, now))
            seen[piece] = found, now
        await witness.look()
        await asyncio.sleep(0.05)
    # The last ones may have died since.
    now = time.monotonic()
    return [*deaths, *(Death(piece, at, now) for piece, (pid, at) in seen.items() if target.pid(piece) != pid)]


def _all_reached(log: Path) -> bool:
    """Whether every point was reached so often that its process died there."""
    counts = recorded(str(log))
    return all(counts[name] >= hit for name, (_, hit) in POINTS.items())


@pytest.mark.parametrize("piece", ["executor", "everything"])
async def test_the_story_goes_on_when_it_is_interrupted_in_the_middle_of_its_loop(piece: str) -> None:
    titles = [f"task {number}" for number in range(6)]
    with Ledger(SEED, Moods(delay_s=(0.15, 0.25))) as ledger:
        async with installation(ledger.address) as target, Person(target.url) as person:
            await person.keep("github", "a secret of GitHub's")
            flow_id = await person.publish(STORY)
            body = {"id": "push", "items": len(titles), "titles": titles, "ledger": ledger.url}
            accepted = await person.client.post(
                f"/api/v1/webhooks/{flow_id}", json=body, headers={"x-webhook-secret": "a secret of GitHub's"}
            )
            assert accepted.status_code == 200, accepted.text
            await until("the loop is at its third item", lambda: len(ledger.calls) >= 3)
            witness = Witness(target, ledger)
            began = time.monotonic()
            async with target.killed(piece):
                deaths = [Death(piece, began, time.monotonic())]
                await witness.look()
            await target.ready()
            sent = Sent("push", len(titles), keyed=False, sync=False, accepted=accepted.json()["run_id"])
            verdict = await judge(target, ledger, [sent], witness, deaths, lambda items: set(range(items)))
            print(f"\n{piece}: {verdict}")
            _check(verdict, target)
            assert verdict.interrupted <= 1, "one call was in flight"
            run = await person.run(sent.accepted)
            calls = [step for step in run["steps"] if step["step_id"] == "add"]
            assert [step["indices"] for step in calls] == [[index] for index in range(len(titles))]
            assert all(step["status"] == "succeeded" for step in run["steps"])
            assert "a secret of GitHub's" not in str(run)
