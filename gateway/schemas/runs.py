"""Runs and their steps, as REST and the live view show them. Inputs and outputs pass through unopened.

Decides: names of fields, words of states, examples. Leaves: what is shown of a run to the executor.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from millrace.executor.v1 import run_pb2
from msgspec import Meta
from pydantic import Field

from gateway.queries import PageQuery
from gateway.schemas.common import Json, Model, enum_views, example, json_view, time_view

_RUN = {
    "id": "0197c1f0-6a1e-7c3a-9d5b-0f3c2f6d1e06",
    "flow_id": "0197c1f0-6a1e-7c3a-9d5b-0f3c2f6d1e04",
    "version_id": "0197c1f0-6a1e-7c3a-9d5b-0f3c2f6d1e05",
    "trigger_id": "hook",
    "status": "succeeded",
    "started_at": "2026-01-05T09:36:00.012Z",
    "finished_at": "2026-01-05T09:36:00.045Z",
    "error": None,
    "steps_finished": 1,
    "test": False,
}
_STEP = {
    "step_id": "answer",
    "indices": [],
    "attempt": 1,
    "status": "succeeded",
    "input": {"body": "hello Ada"},
    "output": None,
    "error": None,
    "started_at": "2026-01-05T09:36:00.020Z",
    "finished_at": "2026-01-05T09:36:00.044Z",
    "console": [],
    "idempotency_key": "",
    "interruptions": 0,
}

_RUN_STATUSES = enum_views(run_pb2.RunStatus.DESCRIPTOR, "RUN_STATUS_")
_STEP_STATUSES = enum_views(run_pb2.StepStatus.DESCRIPTOR, "STEP_STATUS_")
RUN_STATUS_NUMBERS = {word: number for number, word in _RUN_STATUSES.items() if number}

RunStatusWord = Literal[
    "queued",
    "running",
    "paused",
    "canceling",
    "succeeded",
    "failed",
    "canceled",
    "timed_out",
    "memory_exceeded",
    "log_too_large",
    "internal_error",
]
StepStatusWord = Literal["running", "succeeded", "failed", "retrying", "skipped", "interrupted"]


class RunsQuery(PageQuery):
    """Which runs to list."""

    flow_id: Annotated[str, Meta(max_length=36, description="Only runs of this flow.")] = ""
    status: Annotated[
        list[RunStatusWord], Meta(max_length=11, description="Only runs in this state; may be repeated.")
    ] = msgspec.field(default_factory=list)


class RunError(Model):
    """Why a run or a step failed."""

    step_id: str = Field(description="Empty when no step is to blame.")
    indices: list[int] = Field(description="Loop indices around the step, outermost first, from 0.")
    attempt: int = Field(description="Which attempt, from 1.")
    kind: str = Field(description="Stable kind, upper snake case.")
    message: str = Field(description="What happened and what to do.")


class Run(Model):
    """A run, without its steps."""

    model_config = example(_RUN)
    id: str = Field(description="UUIDv7; its time is when the event was accepted.")
    flow_id: str = Field(description="The flow it belongs to.")
    version_id: str = Field(description="The version it runs.")
    trigger_id: str = Field(description="Which trigger fired.")
    status: RunStatusWord = Field(description="Where it stands.")
    started_at: datetime | None = Field(description="When its first step began; null while queued.")
    finished_at: datetime | None = Field(description="When it ended; null before.")
    error: RunError | None = Field(description="Set when it did not end well.")
    steps_finished: int = Field(description="Steps finished so far, each iteration counted.")
    test: bool = Field(description="True for simulations and tests of a draft.")


class RunPage(Model):
    """A page of runs, newest first."""

    model_config = example({"runs": [_RUN], "next_page_token": ""})
    runs: list[Run]
    next_page_token: str = Field(description="Empty on the last page.")


class StepRun(Model):
    """One execution of one step."""

    step_id: str = Field(description="The step's id.")
    indices: list[int] = Field(description="Loop indices around it, outermost first, from 0.")
    attempt: int = Field(description="Which attempt this is, from 1.")
    status: StepStatusWord = Field(description="How it stands.")
    input: Any = Field(description="Resolved input with secrets masked; null if the step has none.")
    output: Any = Field(description="Output; null until it succeeded.")
    error: RunError | None = Field(description="Set when it failed.")
    started_at: datetime | None = Field(description="When it began.")
    finished_at: datetime | None = Field(description="When it ended; null before.")
    console: list[str] = Field(description="What the code printed, one line each.")
    idempotency_key: str = Field(description="Key sent to the outside system; empty for steps without an effect.")
    interruptions: int = Field(description="Times it was taken up again after an interruption.")


class RunWithSteps(Model):
    """A run, what started it, and its steps in the order they began."""

    model_config = example(
        {
            "run": _RUN,
            "trigger_output": {"body": {"name": "Ada"}},
            "steps": [_STEP],
            "steps_truncated": False,
        }
    )
    run: Run
    trigger_output: Any = Field(description="Output of its trigger.")
    steps: list[StepRun] = Field(description="At most 10,000.")
    steps_truncated: bool = Field(description="True when there are more steps than told here.")


def run_view(run: run_pb2.Run) -> dict[str, Json]:
    """A `Run`."""
    return {
        "id": run.id,
        "flow_id": run.flow_id,
        "version_id": run.version_id,
        "trigger_id": run.trigger_id,
        "status": _RUN_STATUSES[run.status],
        "started_at": time_view(run.started_at) if run.HasField("started_at") else None,
        "finished_at": time_view(run.finished_at) if run.HasField("finished_at") else None,
        "error": _error_view(run.error) if run.HasField("error") else None,
        "steps_finished": run.steps_finished,
        "test": run.test,
    }


def steps_view(steps: Sequence[run_pb2.StepRun]) -> list[dict[str, Json]]:
    """`StepRun`s."""
    return [
        {
            "step_id": step.step_id,
            "indices": list(step.indices),
            "attempt": step.attempt,
            "status": _STEP_STATUSES[step.status],
            "input": json_view(step.input),
            "output": json_view(step.output),
            "error": _error_view(step.error) if step.HasField("error") else None,
            "started_at": time_view(step.started_at) if step.HasField("started_at") else None,
            "finished_at": time_view(step.finished_at) if step.HasField("finished_at") else None,
            "console": list(step.console),
            "idempotency_key": step.idempotency_key,
            "interruptions": step.interruptions,
        }
        for step in steps
    ]


def progress_view(progress: run_pb2.RunProgress) -> dict[str, Json]:
    """One thing that happened: the run as it is now and the steps that changed."""
    return {"run": run_view(progress.run), "steps": steps_view(progress.steps)}


def _error_view(error: run_pb2.RunError) -> dict[str, Json]:
    return {
        "step_id": error.step_id,
        "indices": list(error.indices),
        "attempt": error.attempt,
        "kind": error.kind,
        "message": error.message,
    }
