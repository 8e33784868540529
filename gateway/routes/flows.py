"""Flows of the caller's project: making, listing, switching on and off, taking documents in and giving them out.

Decides: the addresses and the form of the answers and documents. Leaves: everything else to flows.
"""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from millrace.flows.v1 import flow_pb2

from chassis.identity import acting_as
from gateway.answers import json_answer, no_content
from gateway.bodies import read_json
from gateway.openapi import document_body, json_body, read_of
from gateway.parts import SignedIn, caller_of, parts
from gateway.problems import is_json, unsupported
from gateway.queries import read_query
from gateway.refusals import refusals
from gateway.schemas import flows as schemas
from gateway.shortcuts import Read

router = APIRouter(prefix="/api/v1/flows", tags=["flows"])

FlowId = Annotated[str, Path(description="The flow.")]
_YAML_TYPES = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"})
_FORMATS = {"json": flow_pb2.DOCUMENT_FORMAT_JSON, "yaml": flow_pb2.DOCUMENT_FORMAT_YAML}
SWITCH_S = 20.0
"""Deadline of calls that wait up to 10 s for the consumers of a flow."""


@router.post(
    "",
    status_code=201,
    summary="Create a flow",
    response_model=schemas.FlowWithFaults,
    responses=refusals("DOCUMENT_INVALID", body=True),
    openapi_extra=json_body(schemas.CreateFlowBody),
)
async def create_flow(request: Request, caller: SignedIn) -> Response:
    """Creates a flow with a draft. Without a document the draft has no trigger and no step."""
    body = await read_json(request, schemas.CreateFlowBody)
    document = bytes(body.document)
    asked = flow_pb2.CreateFlowRequest(name=body.name, document=b"" if document == b"null" else document)
    with acting_as(caller):
        answer = await parts(request).stubs.flows.CreateFlow(asked)
    view = {"flow": schemas.flow_view(answer.flow), "faults": schemas.faults_view(answer.faults)}
    return json_answer(view, 201, {"location": f"/api/v1/flows/{answer.flow.id}"})


@router.get(
    "",
    summary="List flows",
    response_model=schemas.FlowPage,
    responses=refusals("PAGE_TOKEN_INVALID"),
    openapi_extra=read_of(schemas.FlowsQuery),
)
async def list_flows(request: Request) -> Response:
    """The flows of the project, newest first. A page token is bound to the filter."""
    caller = await caller_of(request)
    query = read_query(request, schemas.FlowsQuery)
    asked = flow_pb2.ListFlowsRequest(
        page_size=query.page_size, page_token=query.page_token, name_contains=query.name_contains
    )
    with acting_as(caller):
        answer = await parts(request).stubs.flows.ListFlows(asked)
    found = [schemas.flow_view(flow) for flow in answer.flows]
    return json_answer({"flows": found, "next_page_token": answer.next_page_token})


@router.post(
    "/import",
    status_code=201,
    summary="Import a flow",
    response_model=schemas.FlowWithFaults,
    responses=refusals("DOCUMENT_INVALID", "FLOW_NOT_FOUND", "DRAFT_STALE", body=True)
    | {200: {"description": "The draft was replaced.", "model": schemas.FlowWithFaults}},
    openapi_extra=document_body(),
)
async def import_flow(
    request: Request,
    caller: SignedIn,
    flow_id: Annotated[
        str, Query(max_length=36, description="The flow whose draft to replace; leave it out to create one.")
    ] = "",
    seen_revision: Annotated[
        int, Query(ge=0, le=schemas.MAX_INT64, description="The revision the caller has seen; 0 replaces any.")
    ] = 0,
) -> Response:
    """Takes in a flow document, JSON or YAML by its content type. Faults in its steps are kept in the draft."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in _YAML_TYPES and not is_json(content_type):
        raise unsupported("application/json", "application/yaml")
    asked = flow_pb2.ImportFlowRequest(
        flow_id=flow_id,
        document=await request.body(),
        format=_FORMATS["yaml" if content_type in _YAML_TYPES else "json"],
        seen_revision=seen_revision,
    )
    with acting_as(caller):
        answer = await parts(request).stubs.flows.ImportFlow(asked)
    view = {"flow": schemas.flow_view(answer.flow), "faults": schemas.faults_view(answer.faults)}
    return json_answer(view, 200 if flow_id else 201, {"location": f"/api/v1/flows/{answer.flow.id}"})


@router.get(
    "/{flow_id}",
    summary="Get a flow",
    response_model=schemas.Flow,
    responses=refusals("FLOW_NOT_FOUND"),
    openapi_extra=read_of(path_id="flow_id"),
)
async def get_flow(request: Request) -> Response:
    """One flow, without its document."""
    asked = flow_pb2.GetFlowRequest(flow_id=request.path_params["flow_id"])
    with acting_as(await caller_of(request)):
        answer = await parts(request).stubs.flows.GetFlow(asked)
    return json_answer(schemas.flow_view(answer.flow))


@router.delete("/{flow_id}", status_code=204, summary="Delete a flow", responses=refusals("FLOW_NOT_FOUND"))
async def delete_flow(request: Request, caller: SignedIn, flow_id: FlowId) -> Response:
    """Deletes a flow: its webhooks are gone when the call returns; its runs stay."""
    with acting_as(caller):
        await parts(request).stubs.flows.DeleteFlow(flow_pb2.DeleteFlowRequest(flow_id=flow_id), timeout=SWITCH_S)
    return no_content()


@router.post(
    "/{flow_id}/enable",
    summary="Switch a flow on",
    response_model=schemas.Flow,
    responses=refusals("FLOW_NOT_FOUND", "FLOW_NOT_PUBLISHED")
    | {202: {"description": "Still under way: the state is `enabling`.", "model": schemas.Flow}},
)
async def enable_flow(request: Request, caller: SignedIn, flow_id: FlowId) -> Response:
    """Switches a published flow on; answers when its triggers are live, or after 10 s with 202."""
    with acting_as(caller):
        answer = await parts(request).stubs.flows.EnableFlow(
            flow_pb2.EnableFlowRequest(flow_id=flow_id), timeout=SWITCH_S
        )
    return json_answer(schemas.flow_view(answer.flow), switched(answer.flow))


@router.post(
    "/{flow_id}/disable",
    summary="Switch a flow off",
    response_model=schemas.Flow,
    responses=refusals("FLOW_NOT_FOUND"),
)
async def disable_flow(request: Request, caller: SignedIn, flow_id: FlowId) -> Response:
    """Switches a flow off; after the answer its webhooks are refused with 409."""
    with acting_as(caller):
        answer = await parts(request).stubs.flows.DisableFlow(
            flow_pb2.DisableFlowRequest(flow_id=flow_id), timeout=SWITCH_S
        )
    return json_answer(schemas.flow_view(answer.flow))


@router.get(
    "/{flow_id}/export",
    summary="Export a flow",
    response_class=Response,
    responses=refusals("FLOW_NOT_FOUND", "VERSION_NOT_FOUND")
    | {
        200: {
            "description": "The document, as a file.",
            "content": {
                "application/json": {"schema": {"type": "object"}, "example": schemas.DOCUMENT_EXAMPLE},
                "application/yaml": {"schema": {"type": "object"}, "example": schemas.DOCUMENT_EXAMPLE},
            },
        }
    },
)
async def export_flow(
    request: Request,
    caller: SignedIn,
    flow_id: FlowId,
    format: Annotated[
        Literal["json", "yaml"], Query(description="How to write it.")
    ] = "json",  # the parameter's name on the wire
    version_id: Annotated[str, Query(max_length=36, description="Which version; leave it out for the draft.")] = "",
) -> Response:
    """A version or the draft as a document that import takes."""
    asked = flow_pb2.ExportFlowRequest(flow_id=flow_id, version_id=version_id, format=_FORMATS[format])
    with acting_as(caller):
        answer = await parts(request).stubs.flows.ExportFlow(asked)
    headers = {"content-disposition": f'attachment; filename="{answer.file_name}"'}
    return Response(answer.document, media_type=f"application/{format}", headers=headers)


def switched(flow: flow_pb2.Flow) -> int:
    """The HTTP status of a switch: 202 while it is under way."""
    return 202 if flow.state == flow_pb2.FLOW_STATE_ENABLING else 200


READS = [Read("/api/v1/flows", list_flows), Read("/api/v1/flows/{flow_id}", get_flow)]
