"""The runs in the hands of this incarnation, and what of each is durable.

Decides: what an active run remembers. Leaves: its state to engine/, its writes to flush.py, its work to driver/.
"""

from __future__ import annotations

import asyncio

from services.executor.engine.commands import Answer
from services.executor.engine.journal import AnyEntry
from services.executor.engine.machine import Machine
from services.executor.engine.plan import Plan
from services.executor.positions import RecordSlot
from services.executor.store import RunEnd, RunIdentity


class ActiveRun:
    """One run at work. Numbers of journal entries count from the beginning of the run."""

    __slots__ = (
        "answer",
        "dropped",
        "durable",
        "end",
        "flushed",
        "gone",
        "identity",
        "known",
        "machine",
        "next_chunk",
        "noted_at",
        "plan",
        "slots",
        "started_at_ms",
        "steps_flushed",
        "stored",
        "taken",
        "tasks",
        "urgent",
        "waiters",
    )

    def __init__(self, identity: RunIdentity, plan: Plan, machine: Machine, started_at_ms: int) -> None:
        self.identity = identity
        self.plan = plan
        self.machine = machine
        self.started_at_ms = started_at_ms
        self.stored = False
        """Whether its row and chunk 0 are in a flush."""
        self.known = False
        """Whether they are committed, and its id was new."""
        self.next_chunk = 0
        self.taken = 0
        """Entries handed to a flush."""
        self.durable = 0
        """Entries committed."""
        self.waiters: list[tuple[int, asyncio.Future[None]]] = []
        """Barriers: how many entries must be durable before each goes on."""
        self.noted_at = -1
        """Number of the flush that was next when the run first had something to write; -1 when it has nothing."""
        self.urgent = False
        self.end: RunEnd | None = None
        self.dropped = False
        """Whether it is no longer ours: nothing of it may be written."""
        self.gone = False
        """Whether its end is in a flush."""
        self.flushed: list[AnyEntry] = []
        """What the last flush took; for those who watch."""
        self.steps_flushed = 0
        """Steps finished up to there."""
        self.answer: Answer | None = None
        self.slots: list[RecordSlot] = []
        """The records of the log it came from, until it is written: several when it was delivered again before."""
        self.tasks: set[asyncio.Task[None]] = set()

    def drop(self) -> None:
        """Cancel what is at work for it and write nothing more: it belongs to another, or to nobody."""
        self.dropped = True
        for task in self.tasks:
            task.cancel()
        for _, waiter in self.waiters:
            waiter.cancel()


class ActiveRuns:
    """All active runs by id, and how many each project has."""

    def __init__(self) -> None:
        self._by_id: dict[bytes, ActiveRun] = {}
        self._by_project: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, run_id: bytes) -> bool:
        return run_id in self._by_id

    def get(self, run_id: bytes) -> ActiveRun | None:
        """The active run with this id."""
        return self._by_id.get(run_id)

    def of_project(self, project_id: str) -> int:
        """How many runs of a project are active."""
        return self._by_project.get(project_id, 0)

    def add(self, run: ActiveRun) -> None:
        """Take a run in hand.

        It takes the place of a second delivery of the same run that no flush has turned away yet.
        """
        if run.identity.run_id not in self._by_id:
            project_id = run.identity.project_id
            self._by_project[project_id] = self._by_project.get(project_id, 0) + 1
        self._by_id[run.identity.run_id] = run

    def remove(self, run: ActiveRun) -> None:
        """Let a run go, unless another one with its id has taken its place."""
        if self._by_id.get(run.identity.run_id) is not run:
            return
        del self._by_id[run.identity.run_id]
        project_id = run.identity.project_id
        left = self._by_project[project_id] - 1
        if left:
            self._by_project[project_id] = left
        else:
            del self._by_project[project_id]

    def all(self) -> list[ActiveRun]:
        """A copy of the list."""
        return list(self._by_id.values())
