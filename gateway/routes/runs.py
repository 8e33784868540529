"""Runs of the caller's project: what happened, and what is happening."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from millrace.executor.v1 import run_pb2

from chassis.identity import acting_as
from gateway.answers import json_answer
from gateway.paging import PageSize, PageToken
from gateway.parts import SignedIn, parts
from gateway.refusals import refusals
from gateway.schemas import runs as schemas
from gateway.schemas.common import json_view

router = APIRouter(prefix="/api/v1/runs", tags=["runs"])


@router.get("", summary="List runs", response_model=schemas.RunPage, responses=refusals("PAGE_TOKEN_INVALID"))
async def list_runs(
    request: Request,
    caller: SignedIn,
    flow_id: Annotated[str, Query(max_length=36, description="Only runs of this flow.")] = "",
    status: Annotated[
        list[schemas.RunStatusWord], Query(max_length=11, description="Only runs in this state; may be repeated.")
    ] = [],  # noqa: B006  # FastAPI copies it
    page_size: PageSize = 0,
    page_token: PageToken = "",
) -> Response:
    """The runs of the project, newest first, live and finished together. A page token is bound to the filter."""
    asked = run_pb2.ListRunsRequest(
        flow_id=flow_id,
        statuses=[run_pb2.RunStatus.ValueType(schemas.RUN_STATUS_NUMBERS[word]) for word in status],
        page_size=page_size,
        page_token=page_token,
    )
    with acting_as(caller):
        answer = await parts(request).stubs.runs.ListRuns(asked)
    found = [schemas.run_view(run) for run in answer.runs]
    return json_answer({"runs": found, "next_page_token": answer.next_page_token})


@router.get("/{run_id}", summary="Get a run", response_model=schemas.RunWithSteps, responses=refusals("RUN_NOT_FOUND"))
async def get_run(request: Request, caller: SignedIn, run_id: Annotated[str, Path(description="The run.")]) -> Response:
    """One run with its steps, as far as they are durable."""
    with acting_as(caller):
        answer = await parts(request).stubs.runs.GetRun(run_pb2.GetRunRequest(run_id=run_id))
    view = {
        "run": schemas.run_view(answer.run),
        "trigger_output": json_view(answer.trigger_output),
        "steps": schemas.steps_view(answer.steps),
        "steps_truncated": answer.steps_truncated,
    }
    return json_answer(view)
