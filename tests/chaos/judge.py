"""Judges an installation from outside: by what its senders were told, what the ledger saw, and what PostgreSQL holds.

Decides: what lost, repeated, stuck and interrupted mean (execution.md, How it is proven), from nobody's word: journals
are read from the database, calls from the ledger.
Leaves: killing and load to the tests.

    repeated    a call that arrived for a step whose outcome was seen durable before it arrived (I3), or a second call
                with the same key though nothing had died and no connection had broken between the two
    unbarred    a call that arrived though no start of it was durable (I4)
    interrupted any other second arrival under one key; it must carry the same body
    lost        an event that was accepted and has no run that ended well (I1)
    doubled     an event with more than one run (I2)
    stuck       a run that is not at its end though nothing is left to wait for
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol
from uuid import UUID

import asyncpg
import msgspec

from chassis.documents import unpack
from services.executor.engine.journal import (
    AnyEntry,
    RunStarted,
    StepFailed,
    StepFinished,
    StepInterrupted,
    StepStarted,
    decode_chunk,
)
from services.executor.store import RunStatus
from tests.chaos.flows import expected_items
from tests.chaos.ledger import DROPPED, Call, Ledger
from tests.chaos.processes import PATIENCE_S
from tests.chaos.traffic import Sent

LATE_S = 60.0
"""Run ids tell the time they were minted; runs this much older than now may still be stored for the first time."""
OVERLAP_S = 0.25
"""A call that left before its sender died arrives after that, so much later at most, in seconds."""


class HasDatabase(Protocol):
    """Where the runs are."""

    async def connect(self) -> asyncpg.Connection[asyncpg.Record]:
        """A connection to the database."""


@dataclass(frozen=True, slots=True)
class Death:
    """Something was killed between two times of the machine's monotonic clock."""

    piece: str
    began: float
    ended: float
    """Nothing of it runs any more."""

    def explains(self, earlier: Call, later: Call) -> bool:
        """Whether it can have cut off the earlier call, so that the later one had to be made."""
        return earlier.arrived - OVERLAP_S < self.ended and self.began < later.arrived


class Witness:
    """Looks at journals again and again, and remembers when each outcome was first seen durable."""

    def __init__(self, database: HasDatabase, ledger: Ledger) -> None:
        self._database = database
        self._ledger = ledger
        self._from = UUID(int=0)
        self.started: set[str] = set()
        """Keys whose start was seen durable."""
        self.taken_over: set[str] = set()
        """Keys of effects that were begun, and whose run was taken over then."""
        self.outcome_at: dict[str, float] = {}
        """Key → when its outcome was seen durable, on the machine's monotonic clock."""
        self.unbarred: set[str] = set()
        """Keys that the ledger knew before any start of them was durable."""

    async def look(self) -> None:
        """Read what is durable now."""
        arrived = {call.key for call in list(self._ledger.calls)}
        connection = await self._database.connect()
        try:
            # Primary key of the journal.
            rows = await connection.fetch(
                "SELECT run_id, entries FROM executor.journal WHERE run_id >= $1 ORDER BY run_id, chunk_no", self._from
            )
            oldest_live = await connection.fetchval("SELECT min(run_id::text) FROM executor.run_live")
        finally:
            await connection.close()
        now = time.monotonic()
        for entries in _journals(rows).values():
            started, ended = keys_of(entries)
            self.started |= started
            self.taken_over |= {entry.key for entry in entries if isinstance(entry, StepInterrupted) and entry.key}
            for key in ended:
                self.outcome_at.setdefault(key, now)
        self.unbarred |= arrived - self.started
        recent = UUID(int=int((time.time() - LATE_S) * 1000) << 80)
        self._from = min(recent, UUID(oldest_live)) if oldest_live else recent


def _journals(rows: Sequence[asyncpg.Record]) -> dict[UUID, list[AnyEntry]]:
    found: dict[UUID, list[AnyEntry]] = defaultdict(list)
    for row in rows:
        found[row["run_id"]] += decode_chunk(row["entries"])
    return found


def keys_of(entries: Iterable[AnyEntry]) -> tuple[set[str], set[str]]:
    """Which idempotency keys a journal says were begun, and which have an outcome after which none may be sent."""
    begun: dict[tuple[str, tuple[int, ...]], str] = {}
    started, ended = set(), set()
    for entry in entries:
        match entry:
            case StepStarted():
                begun[entry.step_id, entry.indices] = entry.key
                started.add(entry.key)
            case StepFinished():
                ended.add(begun.get((entry.step_id, entry.indices), ""))
            case StepFailed() if not (entry.unknown and entry.retry_at_ms):
                ended.add(begun.get((entry.step_id, entry.indices), ""))
    return started, ended - {""}


@dataclass(slots=True)
class Ended:
    """A run as the database holds it in the end."""

    status: str
    event: str
    items: int
    takeovers: int


@dataclass(slots=True)
class Verdict:
    """What is left when everything has come to rest."""

    accepted: int = 0
    runs: int = 0
    calls: int = 0
    keys: int = 0
    keys_expected: int = 0
    interrupted: int = 0
    taken_over: int = 0
    lost: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    unbarred: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Whatever else is not as it must be."""

    def faults(self) -> list[str]:
        """Each breach of the promise, as a line."""
        names = ("lost", "stuck", "doubled", "repeated", "unbarred", "wrong")
        found = [f"{name}: {line}" for name in names for line in getattr(self, name)]
        if self.keys != self.keys_expected:
            found.append(f"keys: the ledger saw {self.keys} keys, {self.keys_expected} were expected")
        return found

    def __str__(self) -> str:
        return (
            f"accepted {self.accepted}, runs {self.runs}, calls {self.calls} with {self.keys} keys "
            f"(expected {self.keys_expected}); lost {len(self.lost)}, repeated {len(self.repeated)}, "
            f"stuck {len(self.stuck)}, doubled {len(self.doubled)}, unbarred {len(self.unbarred)}, "
            f"interrupted {self.interrupted}, taken over {self.taken_over}"
        )


async def at_rest(database: HasDatabase, accepted: Iterable[str]) -> list[str]:
    """Waits until no run is live and every accepted one has ended; what is stuck when that does not come to pass."""
    wanted = [UUID(run_id) for run_id in accepted]
    deadline = time.monotonic() + PATIENCE_S
    while True:
        connection = await database.connect()
        try:
            live = await connection.fetch("SELECT run_id, status FROM executor.run_live")
            ended = await connection.fetchval("SELECT count(*) FROM executor.run WHERE run_id = ANY($1)", wanted)
        finally:
            await connection.close()
        if not live and ended == len(wanted):
            return []
        if time.monotonic() > deadline:
            return [f"run {row['run_id']} is {RunStatus(row['status']).name.lower()}" for row in live]
        await asyncio.sleep(0.1)


async def read_runs(database: HasDatabase) -> dict[str, Ended]:
    """All runs that ended, with the event each came from."""
    connection = await database.connect()
    try:
        runs = await connection.fetch("SELECT run_id, status FROM executor.run")
        chunks = await connection.fetch("SELECT run_id, entries FROM executor.journal ORDER BY run_id, chunk_no")
    finally:
        await connection.close()
    journals = _journals(chunks)
    found = {}
    for row in runs:
        entries = journals[row["run_id"]]
        event, items = _event(entries)
        takeovers = sum(isinstance(entry, StepInterrupted) for entry in entries)
        found[str(row["run_id"])] = Ended(RunStatus(row["status"]).name.lower(), event, items, takeovers)
    return found


def _event(entries: Sequence[AnyEntry]) -> tuple[str, int]:
    first = entries[0]
    if not isinstance(first, RunStarted):
        return "", 0
    body = msgspec.json.decode(unpack(first.trigger_output))["body"]
    return body["id"], body["items"]


async def judge(
    database: HasDatabase,
    ledger: Ledger,
    sent: Sequence[Sent],
    witness: Witness,
    deaths: Sequence[Death],
    effects_of: Callable[[int], set[int]] = expected_items,
) -> Verdict:
    """Wait for rest, and judge. `effects_of`: which items an event of so many items has its effects for."""
    verdict = Verdict()
    accepted = {event.accepted for event in sent if event.accepted}
    verdict.accepted = len(accepted)
    verdict.stuck = await at_rest(database, accepted)
    await witness.look()
    runs = await read_runs(database)
    verdict.runs = len(runs)
    verdict.taken_over = sum(run.takeovers for run in runs.values())
    verdict.unbarred = sorted(witness.unbarred)
    _judge_events(verdict, runs, sent)
    _judge_calls(verdict, ledger.calls, witness, deaths)
    _judge_keys(verdict, ledger.calls, {(run.event, item) for run in runs.values() for item in effects_of(run.items)})
    return verdict


def _judge_events(verdict: Verdict, runs: dict[str, Ended], sent: Sequence[Sent]) -> None:
    for run_id, count in Counter(run.event for run in runs.values()).items():
        if count > 1:
            verdict.doubled.append(f"event {run_id} has {count} runs")
    verdict.wrong += [f"run {run_id} {run.status}" for run_id, run in runs.items() if run.status != "succeeded"]
    for event in sent:
        run = runs.get(event.accepted)
        if event.accepted and run is None:
            verdict.lost.append(f"event {event.id} was accepted as run {event.accepted}, which never ended")
        elif run is not None and run.event != event.id:
            verdict.wrong.append(f"event {event.id} was told of run {event.accepted}, which is of event {run.event}")
        if event.answer is not None and event.answer != {"event": event.id, "calls": [200] * event.items}:
            verdict.wrong.append(f"event {event.id} was answered {event.answer}")
        if odd := set(event.statuses) - {0, 200, 408, 503}:
            verdict.wrong.append(f"event {event.id} was answered with status {odd}")


def _judge_calls(verdict: Verdict, calls: Sequence[Call], witness: Witness, deaths: Sequence[Death]) -> None:
    verdict.calls = len(calls)
    of_key: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        of_key[call.key].append(call)
        durable = witness.outcome_at.get(call.key)
        if durable is not None and call.arrived > durable:
            verdict.repeated.append(f"{call.body!r} {call.arrived - durable:.3f} s after its outcome was durable")
    verdict.keys = len(of_key)
    for key, arrivals in of_key.items():
        if any(call.body != arrivals[0].body for call in arrivals):
            verdict.wrong.append(f"key {key} came with different bodies: {[call.body for call in arrivals]}")
        _judge_arrivals(verdict, arrivals, deaths, doubt=key in witness.taken_over)


def _judge_arrivals(verdict: Verdict, arrivals: Sequence[Call], deaths: Sequence[Death], *, doubt: bool) -> None:
    """Why each further call under one key was right: something died meanwhile, or the outside world left a doubt.

    `doubt`: there was one before the first arrival, because a death came between the start and the call.
    """
    for earlier, later in pairwise(arrivals):
        if any(death.explains(earlier, later) for death in deaths):
            verdict.interrupted += 1
            doubt = True
        elif earlier.status == DROPPED and later.arrived > earlier.answered:
            doubt = True  # the sender could not know whether it was heard
        elif not (doubt and earlier.status == 503):  # a refusal does not undo the doubt, so the key stays (I4)
            told = [(round(call.arrived, 2), call.status) for call in arrivals]
            near = [death for death in deaths if abs(death.began - earlier.arrived) < 5]
            verdict.repeated.append(f"{later.body!r} though nothing died since the call before: {told}, {near}")


def _judge_keys(verdict: Verdict, calls: Sequence[Call], expected: set[tuple[str, int]]) -> None:
    """Each expected effect happened under one key, and each key but that one got a refusal."""
    keys: dict[tuple[str, int], dict[str, set[int | None]]] = defaultdict(lambda: defaultdict(set))
    for call in calls:
        body = msgspec.json.decode(call.body)
        keys[body["event"], body["item"]][call.key].add(call.status)
    verdict.wrong += [f"effect {effect} never happened" for effect in expected - keys.keys()]
    verdict.wrong += [f"effect {effect} belongs to no run" for effect in keys.keys() - expected]
    verdict.keys_expected = len(expected)
    for effect, by_key in keys.items():
        done = [key for key, statuses in by_key.items() if 200 in statuses]
        refused = [key for key, statuses in by_key.items() if 200 not in statuses]
        verdict.keys_expected += len(refused)  # n grows after a known failure alone
        verdict.wrong += [
            f"effect {effect}: key {key} had no known failure" for key in refused if 503 not in by_key[key]
        ]
        if len(done) != 1:
            verdict.wrong.append(f"effect {effect} was done under {len(done)} keys")
