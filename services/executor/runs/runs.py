"""Reads runs for people: lists, one run with its steps, and the answers that a webhook replica missed.

Decides: what of a journal is shown, and how many steps at most.
Leaves: telling a journal step by step to engine/view.py, statements to run_store.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import msgspec
import structlog

from chassis.clock import Clock
from chassis.documents import unpack
from chassis.errors import Invalid, NotFound
from chassis.pages import page_size, page_token, read_page_token
from services.executor.engine.commands import Answer
from services.executor.engine.journal import Responded, RunError, decode_chunk
from services.executor.engine.journal import RunStatus as JournalStatus
from services.executor.engine.machine import Machine
from services.executor.engine.plan import Plan
from services.executor.engine.run import end_answer
from services.executor.engine.view import StepView, describe, trigger_document
from services.executor.plans import Plans
from services.executor.runs.run_store import RunRow, RunStore
from services.executor.store import RunStatus

MAX_STEPS = 10_000
LOOK_S = 0.2
"""How often AwaitAnswers looks, in seconds."""
ANSWERS_BYTES = 6 * 1024 * 1024
"""Bodies told by one AwaitAnswers, unless one alone is larger; the others are asked for again. A message has 16 MiB."""
RUN_STATUSES: Mapping[RunStatus, JournalStatus] = {
    RunStatus.FAILED: "failed",
    RunStatus.CANCELED: "canceled",
    RunStatus.TIMED_OUT: "timed_out",
    RunStatus.MEMORY_EXCEEDED: "memory_exceeded",
    RunStatus.LOG_TOO_LARGE: "log_too_large",
    RunStatus.INTERNAL_ERROR: "internal_error",
}
"""The ends of runs that did not succeed, as the engine calls them."""

log = structlog.get_logger()
_error = msgspec.msgpack.Decoder(RunError)


@dataclass(frozen=True, slots=True)
class RunDetail:
    """A run with its steps."""

    run: RunRow
    trigger_output: bytes
    steps: Sequence[StepView]
    truncated: bool


class Runs:
    """The runs of all projects."""

    def __init__(self, store: RunStore, plans: Plans, clock: Clock) -> None:
        self._store = store
        self._plans = plans
        self._clock = clock

    async def page(
        self, project_id: str, *, asked: int, token: str, flow_id: str, statuses: Sequence[int]
    ) -> tuple[list[RunRow], str]:
        """A page of a project's runs, newest first, and the token of the next.

        Raises: Invalid PAGE_TOKEN_INVALID, REQUEST_INVALID.
        """
        limit = page_size(asked)
        bound_to = ("runs", project_id, flow_id, *sorted(statuses))
        before = read_page_token(token, *bound_to)
        if flow_id:
            _check_id(flow_id, "flow_id")
        rows = await self._store.page(project_id, before=before, limit=limit + 1, flow_id=flow_id, statuses=statuses)
        following = page_token(rows[limit - 1].run_id, *bound_to) if len(rows) > limit else ""
        return rows[:limit], following

    async def get(self, project_id: str, run_id: UUID) -> RunDetail:
        """One run of a project. Raises: NotFound."""
        row = await self._store.get(run_id)
        if row is None or str(row.project_id) != project_id:
            raise NotFound("RUN_NOT_FOUND", f"There is no run {run_id} in this project.")
        entries = [entry for chunk in await self._store.chunks(run_id) for entry in decode_chunk(chunk)]
        steps = describe(entries)
        return RunDetail(row, _opened(trigger_document(entries)), steps[:MAX_STEPS], len(steps) > MAX_STEPS)

    async def answers(self, run_ids: Sequence[bytes], timeout_ms: int) -> Mapping[bytes, Answer]:
        """The durable answers of these runs, waiting for the first of them; those without one by then are left out."""
        deadline = self._clock.monotonic() + timeout_ms / 1000
        wanted = [UUID(bytes=run_id) for run_id in run_ids]
        while True:
            found = await self._answers(wanted)
            left = deadline - self._clock.monotonic()
            if found or left <= 0:
                return found
            await asyncio.sleep(min(LOOK_S, left))

    async def _answers(self, run_ids: Sequence[UUID]) -> dict[bytes, Answer]:
        rows = {run_id: row for run_id in run_ids if (row := await self._store.get(run_id)) is not None}
        plans = await self._plans.get({str(row.version_id) for row in rows.values()})
        journals = await self._store.chunks_of(list(rows))
        found: dict[bytes, Answer] = {}
        size = 0
        for run_id, row in rows.items():
            try:
                answer = self._answer(row, plans.get(str(row.version_id)), journals.get(run_id, ()))
            except Exception:  # a journal that we fail at must not keep their answers from all others
                log.exception("answer_unknown", run_id=run_id.hex)
                continue
            if answer is None:
                continue
            size += len(answer.body)
            if found and size > ANSWERS_BYTES:
                break
            found[run_id.bytes] = answer
        return found

    def _answer(self, row: RunRow, plan: Plan | None, chunks: Sequence[bytes]) -> Answer | None:
        """What a run has durably answered; None when nothing yet."""
        entries = [entry for chunk in chunks for entry in decode_chunk(chunk)]
        for entry in entries:
            if isinstance(entry, Responded) and not entry.ignored:
                return Answer(entry.status, entry.headers, entry.body)
        if not row.status.ended:
            return None
        if row.status is not RunStatus.SUCCEEDED:
            error = _error.decode(row.error) if row.error else None
            return end_answer(RUN_STATUSES[row.status], error, b"null", 0)
        if plan is None:
            return None
        # Nothing of this machine is carried out: it only tells what its last step left.
        machine, _ = Machine.recover(plan, row.run_id.bytes, entries, self._clock.now_ms(), taken_over=False)
        return machine.answer


def _opened(packed: bytes) -> bytes:
    """The trigger's output as JSON; empty where there is none, or none that can be read: the run's error says so."""
    try:
        return unpack(packed) if packed else b""
    except Invalid:
        return b""


def _check_id(text: str, field: str) -> None:
    try:
        UUID(text)
    except ValueError:
        raise Invalid("REQUEST_INVALID", f"`{field}` must be an id (a UUID).") from None


__all__ = ["RunDetail", "RunStatus", "Runs"]
