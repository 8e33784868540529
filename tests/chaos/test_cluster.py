"""Every service as its own process on real Kafka, Redis and PostgreSQL, with two executors, killed under load.

`MILLRACE_CHAOS_SEED` and `MILLRACE_CHAOS_KILLS_CLUSTER` as in test_embedded.
"""

from __future__ import annotations

import os
import random

import pytest

from tests.chaos.cluster import SECOND, cluster
from tests.chaos.flows import LOAD
from tests.chaos.judge import Witness, judge
from tests.chaos.killer import TWICE, Killer
from tests.chaos.ledger import Ledger, Moods
from tests.chaos.person import Person
from tests.chaos.traffic import Traffic

KILLS = int(os.environ.get("MILLRACE_CHAOS_KILLS_CLUSTER", "24"))
SEED = int(os.environ.get("MILLRACE_CHAOS_SEED") or random.randrange(1_000_000))
PIECES = {"executor": 9, "executor" + TWICE: 1, SECOND: 9, "webhooks": 2, "postgres": 1, "everything": 1}
"""What is killed how often, for 24 kills, 20 of them of executors."""

pytestmark = pytest.mark.slow


async def test_whatever_is_killed_nothing_is_lost_or_repeated() -> None:
    chance = random.Random(SEED)
    pieces = [piece for piece, share in PIECES.items() for _ in range(max(1, round(share * KILLS / 24)))]
    chance.shuffle(pieces)
    with Ledger(SEED, Moods(refused=0.03, dropped=0.02)) as ledger:
        async with cluster(ledger.address) as target, Person(target.url) as person:
            flow_id = await person.publish(LOAD)
            witness = Witness(target, ledger)
            killer = Killer(target, ledger, witness, chance)
            async with Traffic(target.url, flow_id, ledger.url, SEED) as traffic:
                for piece in pieces:
                    await killer.kill(piece)
            verdict = await judge(target, ledger, traffic.sent, witness, killer.deaths)
            print(f"\nseed {SEED}\n{killer}\n{verdict}")
            faults = verdict.faults()
            assert not faults, "\n".join([f"seed {SEED}: {verdict}", *faults[:40], target.said()])
            shown = await person.statuses()
            assert all(shown.get(event.accepted) == "succeeded" for event in traffic.sent if event.accepted)
