"""What must hold when the database is away for long, and when an installation is stopped and started again under load.

`MILLRACE_CHAOS_AWAY_S=30` makes the outage as long as an operator may fear; a few seconds show the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.chaos.cluster import cluster
from tests.chaos.flows import LOAD, STORY
from tests.chaos.installation import Installation, installation
from tests.chaos.judge import Death, Witness, judge
from tests.chaos.ledger import Ledger
from tests.chaos.person import Person
from tests.chaos.processes import until
from tests.chaos.traffic import Sent, Traffic

AWAY_S = float(os.environ.get("MILLRACE_CHAOS_AWAY_S", "8"))
SEED = int(os.environ.get("MILLRACE_CHAOS_SEED") or random.randrange(1_000_000))

pytestmark = pytest.mark.slow


class Probe:
    """Sends one event after the other, each once, and keeps the answers."""

    def __init__(self, url: str, flow_id: str, ledger: Ledger, name: str) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=60)
        self._path = f"/api/v1/webhooks/{flow_id}"
        self._ledger = ledger
        self._name = name
        self.sent: list[Sent] = []
        self.answers: list[httpx.Response] = []

    async def send(self, *, keyed: bool) -> httpx.Response:
        """One event."""
        event = Sent(f"{self._name}-{len(self.sent)}", items=1, keyed=keyed, sync=False)
        self.sent.append(event)
        response = await self._client.post(
            self._path,
            json={"id": event.id, "items": event.items, "ledger": self._ledger.url},
            headers={"x-event-id": event.id} if keyed else {},
        )
        event.statuses.append(response.status_code)
        event.accepted = response.headers.get("x-millrace-run-id", "") if response.is_success else ""
        self.answers.append(response)
        return response

    async def send_for(self, seconds: float, *, keyed: bool | None = None) -> list[httpx.Response]:
        """Events for as long; `keyed` None: every other one."""
        first, until_s = len(self.answers), time.monotonic() + seconds
        while time.monotonic() < until_s:
            await self.send(keyed=len(self.sent) % 2 == 0 if keyed is None else keyed)
            await asyncio.sleep(0.1)
        return self.answers[first:]


async def _works_again(target: Installation, ledger: Ledger) -> float:
    """How long it takes until effects arrive again, in seconds."""
    began, seen = time.monotonic(), len(ledger.calls)
    await until("effects arrive again", lambda: len(ledger.calls) > seen + 3)
    await target.ready()
    return time.monotonic() - began


async def test_with_the_database_away_senders_are_asked_to_come_back_and_nothing_accepted_is_lost() -> None:
    with Ledger(SEED) as ledger:
        async with installation(ledger.address) as target, Person(target.url) as person:
            flow_id = await person.publish(LOAD)
            witness, probe = Witness(target, ledger), Probe(target.url, flow_id, ledger, "probe")
            async with Traffic(target.url, flow_id, ledger.url, SEED) as traffic:
                await until("work goes on", lambda: len(ledger.calls) > 30)
                async with target.database_away():
                    died = time.monotonic()
                    answers = await probe.send_for(AWAY_S)
                outage = Death("postgres", died, time.monotonic())
                took_s = await _works_again(target, ledger)
            assert {answer.status_code for answer in answers} == {503}
            assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
            assert {answer.headers["content-type"] for answer in answers} == {"application/problem+json"}
            verdict = await judge(target, ledger, [*traffic.sent, *probe.sent], witness, [outage])
            print(f"\nseed {SEED}: {len(answers)} refused in {AWAY_S:g} s, back after {took_s:.1f} s; {verdict}")
            assert not verdict.faults(), [*verdict.faults(), target.said()]


async def test_in_a_cluster_events_without_a_key_are_accepted_while_the_database_is_away() -> None:
    with Ledger(SEED) as ledger:
        async with cluster(ledger.address) as target, Person(target.url) as person:
            flow_id = await person.publish(LOAD)
            witness, probe = Witness(target, ledger), Probe(target.url, flow_id, ledger, "probe")
            async with Traffic(target.url, flow_id, ledger.url, SEED) as traffic:
                await until("work goes on", lambda: len(ledger.calls) > 30)
                async with target.database_away():
                    died = time.monotonic()
                    unkeyed = await probe.send_for(AWAY_S / 2, keyed=False)
                    keyed = await probe.send_for(AWAY_S / 2, keyed=True)
                outage = Death("postgres", died, time.monotonic())
                took_s = await _works_again(target, ledger)
            assert {answer.status_code for answer in unkeyed} == {200}
            assert {answer.status_code for answer in keyed} == {503}
            assert all(int(answer.headers["retry-after"]) >= 1 for answer in keyed)
            verdict = await judge(target, ledger, [*traffic.sent, *probe.sent], witness, [outage])
            print(f"\nseed {SEED}: {len(unkeyed)} accepted meanwhile, back after {took_s:.1f} s; {verdict}")
            assert not verdict.faults(), [*verdict.faults(), target.said()]


async def test_an_installation_that_is_told_to_stop_drains_and_goes_on_after_the_next_start() -> None:
    with Ledger(SEED) as ledger:
        async with installation(ledger.address) as target, Person(target.url) as person:
            await person.keep("github", "a secret")
            flow_id, story_id = await person.publish(LOAD), await person.publish(STORY)
            witness = Witness(target, ledger)
            async with Traffic(target.url, flow_id, ledger.url, SEED) as traffic:
                await until("work goes on", lambda: len(ledger.calls) > 60)
                began = time.monotonic()
                assert await target.stop() == 0
                stopped = Death("everything, gently", began, time.monotonic())
                assert target.pid("postgres") is None
                assert list(_complaints(target)) == []
                target.launch()
                await target.ready()
                await _works_again(target, ledger)
            verdict = await judge(target, ledger, traffic.sent, witness, [stopped])
            print(f"\nseed {SEED}: {verdict}")
            assert not verdict.faults(), [*verdict.faults(), target.said()]
            await _kept(person, ledger, story_id)


async def _kept(person: Person, ledger: Ledger, flow_id: str) -> None:
    """The account, the connection and the flow of before are there, and work."""
    answer = await person.client.post(
        f"/api/v1/webhooks/{flow_id}/sync",
        json={"id": "after", "items": 2, "titles": ["a", "b"], "ledger": ledger.url},
        headers={"x-webhook-secret": "a secret"},
    )
    assert (answer.status_code, answer.json()) == (200, {"warning": None, "tasks": ["a", "b"]})


def _complaints(target: Installation) -> Iterator[Any]:
    """Errors in the log, and stacks."""
    for line in target.platform.output.splitlines():
        if "Traceback" in line:
            yield line
        elif line.startswith("{") and (told := json.loads(line)).get("level") in ("error", "critical"):
            yield told
