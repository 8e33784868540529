"""Runs and steps as messages.

Decides: which word on the wire each state of a step has. Leaves: what is shown to engine/view.py and runs.py.
"""

from __future__ import annotations

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp
from millrace.executor.v1 import run_pb2 as pb

from services.executor.active import ActiveRun
from services.executor.engine.journal import RunError
from services.executor.engine.view import StepView
from services.executor.runs.run_store import RunRow
from services.executor.store import RunStatus

_STATUS = {
    "running": pb.STEP_STATUS_RUNNING,
    "waiting": pb.STEP_STATUS_RETRYING,
    "succeeded": pb.STEP_STATUS_SUCCEEDED,
    "failed": pb.STEP_STATUS_FAILED,
    "continued": pb.STEP_STATUS_FAILED,
    "interrupted": pb.STEP_STATUS_INTERRUPTED,
    "stopped": pb.STEP_STATUS_SKIPPED,
}
_error = msgspec.msgpack.Decoder(RunError)
_lines = msgspec.json.Decoder(list[str])


def timestamp(at_ms: int | None) -> Timestamp | None:
    """A time on the wire; none for 0 and None."""
    if not at_ms:
        return None
    return Timestamp(seconds=at_ms // 1000, nanos=at_ms % 1000 * 1_000_000)


def error_message(error: RunError | None) -> pb.RunError | None:
    """Why a run or a step failed."""
    if error is None:
        return None
    return pb.RunError(
        step_id=error.step_id, indices=error.indices, attempt=error.attempt, kind=error.kind, message=error.message
    )


def run_message(row: RunRow) -> pb.Run:
    """A run as it is stored."""
    return pb.Run(
        id=str(row.run_id),
        flow_id=str(row.flow_id),
        version_id=str(row.version_id),
        trigger_id=row.trigger_id,
        status=pb.RunStatus.ValueType(row.status),
        started_at=timestamp(row.started_at_ms),
        finished_at=timestamp(row.finished_at_ms),
        error=error_message(_error.decode(row.error)) if row.error else None,
        steps_finished=row.steps_finished,
        test=row.test,
    )


def active_message(run: ActiveRun, run_id: str) -> pb.Run:
    """A run at work, or one that has just ended, as far as it is durable (I3): it may have gone on since that flush."""
    end = run.end if run.gone else None
    status = end.status if end else RunStatus.RUNNING
    return pb.Run(
        id=run_id,
        flow_id=run.identity.flow_id,
        version_id=run.identity.version_id,
        trigger_id=run.identity.trigger_id,
        status=pb.RunStatus.ValueType(status),
        started_at=timestamp(run.started_at_ms),
        finished_at=timestamp(end.finished_at_ms) if end else None,
        error=error_message(run.machine.error) if end else None,
        steps_finished=run.steps_flushed,
        test=run.identity.test,
    )


def step_message(step: StepView, *, with_documents: bool) -> pb.StepRun:
    """One step; documents are left out of progress."""
    return pb.StepRun(
        step_id=step.step_id,
        indices=step.indices,
        attempt=step.attempt,
        status=_STATUS[step.status],
        input=step.input if with_documents else b"",
        output=step.output if with_documents else b"",
        error=error_message(step.error),
        started_at=timestamp(step.started_ms),
        finished_at=timestamp(step.finished_ms),
        console=_lines.decode(step.console) if with_documents and step.console else [],
        idempotency_key=step.key,
        interruptions=step.interruptions,
    )


__all__ = ["active_message", "error_message", "run_message", "step_message", "timestamp"]
