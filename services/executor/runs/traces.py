"""Traces of runs for OpenTelemetry: spans made from the journal once a run has ended; imported where they are exported.

Decides: which runs are traced (all that failed or were slow, a share of the rest, chosen by the run id so that every
executor chooses alike), what a span says, and that the trace id is the run id: who has one finds the other.
Leaves: sending to chassis/telemetry.py, what happened in a run to engine/view.py.
Holds: no span stands on the hot path (a live one costs 41 µs); a collector that is away costs traces, never a run.
Inputs and outputs of steps stay here: a trace says when and how, not what.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from uuid import UUID

import structlog
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from chassis.errors import Unavailable
from chassis.telemetry import SpanExport
from services.executor.active import ActiveRun
from services.executor.engine.journal import AnyEntry, Indices, RunError, decode_chunk
from services.executor.engine.view import StepView, describe
from services.executor.runs.run_store import RunStore
from services.executor.store import RunEnd, RunIdentity, RunStatus

WAITING = 1_000
"""Ended runs that may wait to be told; the oldest is dropped."""
MAX_STEPS = 1_000
"""Most spans of steps in one trace; of more steps the first are told."""
LAST_S = 2.0
"""How long the traces that wait may still be told when the executor ends, in seconds."""
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_BAD = frozenset({"failed", "continued", "interrupted"})

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run to be traced. `entries`: its whole journal, empty when it must be read."""

    identity: RunIdentity
    started_at_ms: int
    end: RunEnd
    error: RunError | None
    entries: Sequence[AnyEntry]


class Traces:
    """Tells a collector of runs that ended."""

    def __init__(self, export: SpanExport, store: RunStore, *, slow_s: float, share: float) -> None:
        self._export = export
        self._store = store
        self._slow_ms = slow_s * 1000
        self._share = int(share * 2**32)
        self._waiting: deque[EndedRun] = deque(maxlen=WAITING)
        self._wake = asyncio.Event()

    async def __aenter__(self) -> Traces:
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_S):
                await self._tell_all()
        await asyncio.to_thread(self._export.processor.shutdown)  # sends what waits

    def beside(self, told: Callable[[Sequence[ActiveRun]], None]) -> Callable[[Sequence[ActiveRun]], None]:
        """Tells `told` first, then looks which of these runs ended and are to be traced."""

        def both(runs: Sequence[ActiveRun]) -> None:
            told(runs)
            for run in runs:
                if run.gone and run.end is not None and self._chosen(run, run.end):
                    self._take(run, run.end)

        return both

    def _chosen(self, run: ActiveRun, end: RunEnd) -> bool:
        if end.status is not RunStatus.SUCCEEDED or end.finished_at_ms - run.started_at_ms > self._slow_ms:
            return True
        return int.from_bytes(run.identity.run_id[-4:]) < self._share

    def _take(self, run: ActiveRun, end: RunEnd) -> None:
        whole = run.flushed if run.next_chunk == 1 else ()
        self._waiting.append(EndedRun(run.identity, run.started_at_ms, end, run.machine.error, whole))
        self._wake.set()

    async def run(self) -> None:
        """Hand the spans of what waits to the exporter, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._tell_all()

    async def _tell_all(self) -> None:
        while self._waiting:
            await self._tell(self._waiting.popleft())

    async def _tell(self, run: EndedRun) -> None:
        try:
            chunks = [] if run.entries else await self._store.chunks(UUID(bytes=run.identity.run_id))
        except Unavailable as error:
            log.warning("trace_lost", run_id=run.identity.run_id.hex(), reason=error.message)
            return
        await asyncio.to_thread(self._hand_over, run, chunks)  # many steps are much work: others must not wait for it

    def _hand_over(self, run: EndedRun, chunks: Sequence[bytes]) -> None:
        entries = run.entries or [entry for chunk in chunks for entry in decode_chunk(chunk)]
        for span in spans_of(run, describe(entries), self._export.resource):
            self._export.processor.on_end(span)


def spans_of(run: EndedRun, steps: Sequence[StepView], resource: Resource) -> Iterator[ReadableSpan]:
    """The run's own span, then one a step; the span of a loop holds those of its items."""
    identity = run.identity
    status = run.end.status
    root = _context(identity.run_id, "run", ())
    yield ReadableSpan(
        f"run {identity.trigger_id}",
        root,
        resource=resource,
        kind=SpanKind.CONSUMER,
        attributes={
            "millrace.run_id": str(UUID(bytes=identity.run_id)),
            "millrace.project_id": identity.project_id,
            "millrace.flow_id": identity.flow_id,
            "millrace.version_id": identity.version_id,
            "millrace.test": identity.test,
            "millrace.status": status.name.lower(),
            "millrace.steps": len(steps),
            **_why(run.error),
        },
        status=_status(status is not RunStatus.SUCCEEDED, run.error),
        start_time=run.started_at_ms * 1_000_000,
        end_time=run.end.finished_at_ms * 1_000_000,
    )
    loops: dict[Indices, SpanContext] = {}
    for step in steps[:MAX_STEPS]:
        context = _context(identity.run_id, step.step_id, step.indices)
        parent = loops.get(step.indices[:-1], root) if step.indices else root
        if step.kind == "loop":
            loops[step.indices] = context  # one list of steps works on one of them at a time: the newest loop is around
        yield _step_span(step, context, parent, resource, run.end.finished_at_ms)


def _step_span(
    step: StepView, context: SpanContext, parent: SpanContext, resource: Resource, run_ended_ms: int
) -> ReadableSpan:
    return ReadableSpan(
        step.step_id,
        context,
        parent,
        resource,
        attributes={
            "millrace.step_id": step.step_id,
            "millrace.step_kind": step.kind,
            "millrace.indices": step.indices,
            "millrace.status": step.status,
            "millrace.attempts": step.attempt,
            "millrace.interruptions": step.interruptions,
            **_why(step.error),
        },
        status=_status(step.status in _BAD, step.error),
        start_time=step.started_ms * 1_000_000,
        end_time=(step.finished_ms or run_ended_ms) * 1_000_000,
    )


def _context(run_id: bytes, step_id: str, indices: Indices) -> SpanContext:
    """Told twice, a trace has the same ids."""
    span_id = blake2b(run_id + f"{step_id}/{indices}".encode(), digest_size=8).digest()
    return SpanContext(int.from_bytes(run_id), int.from_bytes(span_id), is_remote=False, trace_flags=_SAMPLED)


def _why(error: RunError | None) -> dict[str, str]:
    return {"error.type": error.kind, "millrace.error_step_id": error.step_id} if error is not None else {}


def _status(bad: bool, error: RunError | None) -> Status:
    return Status(StatusCode.ERROR, error.message if error is not None else None) if bad else Status(StatusCode.OK)
