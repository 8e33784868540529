"""Runs of the caller's project: what happened, and what is happening.

Decides: the addresses and the form of the answers. Leaves: everything else to the executor.
"""

from fastapi import APIRouter, Request, Response
from millrace.executor.v1 import run_pb2

from chassis.identity import acting_as
from gateway.answers import json_answer
from gateway.openapi import read_of
from gateway.parts import caller_of, parts
from gateway.queries import read_query
from gateway.refusals import refusals
from gateway.schemas import runs as schemas
from gateway.schemas.common import json_view
from gateway.shortcuts import Read

router = APIRouter(prefix="/api/v1/runs", tags=["runs"])


@router.get(
    "",
    summary="List runs",
    response_model=schemas.RunPage,
    responses=refusals("PAGE_TOKEN_INVALID"),
    openapi_extra=read_of(schemas.RunsQuery),
)
async def list_runs(request: Request) -> Response:
    """The runs of the project, newest first, live and finished together. A page token is bound to the filter."""
    caller = await caller_of(request)
    query = read_query(request, schemas.RunsQuery)
    asked = run_pb2.ListRunsRequest(
        flow_id=query.flow_id,
        statuses=[run_pb2.RunStatus.ValueType(schemas.RUN_STATUS_NUMBERS[word]) for word in query.status],
        page_size=query.page_size,
        page_token=query.page_token,
    )
    with acting_as(caller):
        answer = await parts(request).stubs.runs.ListRuns(asked)
    found = [schemas.run_view(run) for run in answer.runs]
    return json_answer({"runs": found, "next_page_token": answer.next_page_token})


@router.get(
    "/{run_id}",
    summary="Get a run",
    response_model=schemas.RunWithSteps,
    responses=refusals("RUN_NOT_FOUND"),
    openapi_extra=read_of(path_id="run_id"),
)
async def get_run(request: Request) -> Response:
    """One run with its steps, as far as they are durable."""
    asked = run_pb2.GetRunRequest(run_id=request.path_params["run_id"])
    with acting_as(await caller_of(request)):
        answer = await parts(request).stubs.runs.GetRun(asked)
    view = {
        "run": schemas.run_view(answer.run),
        "trigger_output": json_view(answer.trigger_output),
        "steps": schemas.steps_view(answer.steps),
        "steps_truncated": answer.steps_truncated,
    }
    return json_answer(view)


READS = [Read("/api/v1/runs", list_runs), Read("/api/v1/runs/{run_id}", get_run)]
