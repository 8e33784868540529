"""The world outside: a ledger that counts every effect by key, and judges each at the moment it arrives.

What it holds against the executor (execution.md, How it is proven):
I3  no effect arrives for a step whose outcome is durable ("repeated");
I4  when an effect arrives, its start is durable, with the same key and input;
I8  no effect comes from an incarnation that was taken over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random

import msgspec
from millrace_sdk import ConnectionLost, Response

from services.executor.engine.journal import StepFailed, StepFinished, StepStarted, decode_chunk
from tests.simulation.sim_store import SimDatabase


@dataclass
class Arrival:
    key: str
    body: bytes
    epoch: int


@dataclass
class Ledger:
    """Every effect that arrived, and every promise that was broken."""

    database: SimDatabase
    arrivals: list[Arrival] = field(default_factory=list)
    by_place: dict[tuple[str, str, int], set[str]] = field(default_factory=dict)
    refused: dict[tuple[str, str, int], int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def arrive(self, epoch: int, key: str, body: bytes) -> tuple[str, str, int]:
        place: tuple[str, str, int] = msgspec.json.decode(body, type=tuple[str, str, int])
        run_id, step_id, item = place
        chunks = self.database.journal.get(bytes.fromhex(run_id.replace("-", "")), [])
        entries = [entry for chunk in chunks for entry in decode_chunk(chunk)]
        indices = (item,) if item >= 0 else ()
        here = [
            entry
            for entry in entries
            if getattr(entry, "step_id", "") == step_id and getattr(entry, "indices", ()) == indices
        ]
        if any(
            isinstance(entry, StepFinished) or (isinstance(entry, StepFailed) and not entry.retry_at_ms)
            for entry in here
        ):
            self.broken.append(f"I3: {place} arrived again although its outcome was durable")
        if not any(isinstance(entry, StepStarted) and entry.key == key for entry in here):
            self.broken.append(f"I4: {place} arrived before its start was durable")
        if not self.database.incarnations[epoch].alive:
            self.broken.append(f"I8: {place} came from incarnation {epoch}, which was taken over")
        if any(arrival.key == key and arrival.body != body for arrival in self.arrivals):
            self.broken.append(f"I4: {place} came twice under one key with different bodies")
        self.arrivals.append(Arrival(key, body, epoch))
        self.by_place.setdefault(place, set()).add(key)
        return place


class WorldHttp:
    """The way out of one executor process; millrace_sdk.Http."""

    def __init__(self, ledger: Ledger, random: Random, trouble: float) -> None:
        self._ledger = ledger
        self._random = random
        self._trouble = trouble
        self.epoch = 0

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout: timedelta = timedelta(seconds=30),  # noqa: ASYNC109 - the port's own signature
        max_redirects: int = 5,
    ) -> Response:
        await asyncio.sleep(self._random.random() * 0.02)
        if method == "GET":
            return Response(200, {"content-type": "application/json"}, b'{"read":true}', url)
        place = self._ledger.arrive(self.epoch, (headers or {})["Idempotency-Key"], body or b"")
        await asyncio.sleep(self._random.random() * 0.02)
        roll = self._random.random()
        if roll < self._trouble:
            self._ledger.refused[place] = self._ledger.refused.get(place, 0) + 1
            return Response(503, {}, b"", url)
        if roll < 2 * self._trouble:
            raise ConnectionLost("The answer never came.")
        return Response(200, {"content-type": "application/json"}, body or b"", url)
