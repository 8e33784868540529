"""Kills pieces of an installation under load, at random moments, and sees to it that what is durable is on record."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from uuid import UUID

from tests.chaos.installation import Installation
from tests.chaos.judge import Death, Witness
from tests.chaos.ledger import Ledger
from tests.chaos.processes import NotInTimeError, until

TWICE = " twice"
"""After the name of a piece: it is killed again while it takes up what it finds."""


class Killer:
    """One death after the other. `deaths` is their history."""

    def __init__(self, target: Installation, ledger: Ledger, witness: Witness, chance: random.Random) -> None:
        self.deaths: list[Death] = []
        self._recovery_s: dict[str, list[float]] = defaultdict(list)
        self._target = target
        self._ledger = ledger
        self._witness = witness
        self._chance = chance

    async def kill(self, piece: str) -> None:
        """A death at a random moment of work; returns when work goes on and what lived at the death has ended.

        Three deaths at one place are one too many for a run, so that no more than two come together.
        """
        name = piece.removesuffix(TWICE)
        await self._calls(5)
        await self._once(name)
        if name != piece:
            await until(f"{name} is started again", lambda: self._target.pid(name) is not None)
            await self._once(name)
        await self._recovered(name)

    async def _once(self, piece: str) -> None:
        await asyncio.sleep(self._chance.uniform(0, 0.5))
        began = time.monotonic()
        async with self._target.killed(piece):
            self.deaths.append(Death(piece, began, time.monotonic()))
            await self._witness.look()

    async def _recovered(self, piece: str) -> None:
        began = self.deaths[-1].ended
        await self._calls(1)
        self._recovery_s[piece].append(time.monotonic() - began)
        living = await self._living(None)
        deadline = time.monotonic() + 90
        while living := await self._living(living):
            if time.monotonic() > deadline:
                raise NotInTimeError(f"{piece} died; these runs do not end: {living}")
            await asyncio.sleep(0.1)

    async def _living(self, among: Sequence[UUID] | None) -> list[UUID]:
        """The runs that have not ended."""
        connection = await self._target.connect()
        try:
            rows = await connection.fetch(
                "SELECT run_id FROM executor.run_live WHERE $1::uuid[] IS NULL OR run_id = ANY($1)", among
            )
        finally:
            await connection.close()
        return [row["run_id"] for row in rows]

    async def _calls(self, more: int) -> None:
        seen = len(self._ledger.calls)
        after = f"after the death of {self.deaths[-1].piece}" if self.deaths else "at the start"
        await until(f"{more} more calls reach the ledger {after}", lambda: len(self._ledger.calls) >= seen + more)

    def __str__(self) -> str:
        lines = [f"deaths: {dict(Counter(death.piece for death in self.deaths))}"]
        lines += [
            f"work went on after a death of {piece}: median {statistics.median(times):.1f} s, worst {max(times):.1f} s"
            for piece, times in self._recovery_s.items()
        ]
        return "\n".join(lines)
