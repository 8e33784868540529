"""The draft of a flow and its published versions.

Decides: the addresses, the form of the answers, 202 for what is still under way. Leaves: everything else to flows.
"""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from millrace.flows.v1 import draft_pb2, version_pb2

from chassis.identity import acting_as
from gateway.answers import json_answer
from gateway.bodies import read_json
from gateway.openapi import json_body, read_of
from gateway.parts import SignedIn, parts
from gateway.queries import PageQuery, read_query
from gateway.refusals import refusals
from gateway.routes.flows import SWITCH_S, FlowId, switched
from gateway.schemas import flows as schemas

router = APIRouter(prefix="/api/v1/flows/{flow_id}", tags=["flows"])


@router.get(
    "/draft", summary="Get the draft", response_model=schemas.DraftWithSamples, responses=refusals("FLOW_NOT_FOUND")
)
async def get_draft(request: Request, caller: SignedIn, flow_id: FlowId) -> Response:
    """The draft with its faults and, per trigger, the newest captured sample."""
    with acting_as(caller):
        answer = await parts(request).stubs.drafts.GetDraft(draft_pb2.GetDraftRequest(flow_id=flow_id))
    return json_answer({"draft": schemas.draft_view(answer.draft), "samples": schemas.samples_view(answer.samples)})


@router.patch(
    "/draft",
    summary="Edit the draft",
    response_model=schemas.Draft,
    responses=refusals("FLOW_NOT_FOUND", "DRAFT_STALE", "OPERATION_INVALID", body=True),
    openapi_extra=json_body(schemas.EditDraftBody),
)
async def edit_draft(request: Request, caller: SignedIn, flow_id: FlowId) -> Response:
    """Applies operations in order, all or none. The same `edit_id` again changes nothing."""
    body = await read_json(request, schemas.EditDraftBody)
    asked = draft_pb2.EditDraftRequest(
        flow_id=flow_id,
        seen_revision=body.seen_revision,
        operations=[bytes(operation) for operation in body.operations],
        edit_id=body.edit_id,
    )
    with acting_as(caller):
        answer = await parts(request).stubs.drafts.EditDraft(asked)
    return json_answer(schemas.draft_view(answer.draft))


@router.post(
    "/publish",
    summary="Publish the draft",
    response_model=schemas.Published,
    responses=refusals("FLOW_NOT_FOUND", "DRAFT_STALE", "DRAFT_INVALID", body=True)
    | {202: {"description": "Still under way: the state is `enabling`.", "model": schemas.Published}},
    openapi_extra=json_body(schemas.PublishBody, required=False),
)
async def publish_draft(request: Request, caller: SignedIn, flow_id: FlowId) -> Response:
    """Locks the draft as a version and makes it live: after a 200 with `enabled` the next webhook meets it.

    `enable_failed` says why in `failure`; the version before it stays live. 202 after 10 s: still under way.
    """
    body = await read_json(request, schemas.PublishBody, optional=True)
    with acting_as(caller):
        answer = await parts(request).stubs.versions.PublishDraft(
            version_pb2.PublishDraftRequest(flow_id=flow_id, seen_revision=body.seen_revision), timeout=SWITCH_S
        )
    view = {"flow": schemas.flow_view(answer.flow), "version": schemas.version_view(answer.version)}
    return json_answer(view, switched(answer.flow))


@router.get(
    "/versions",
    summary="List versions",
    response_model=schemas.VersionPage,
    responses=refusals("FLOW_NOT_FOUND", "PAGE_TOKEN_INVALID"),
    openapi_extra=read_of(PageQuery),
)
async def list_versions(request: Request, caller: SignedIn, flow_id: FlowId) -> Response:
    """The published versions of a flow, newest first, without their documents."""
    query = read_query(request, PageQuery)
    asked = version_pb2.ListVersionsRequest(flow_id=flow_id, page_size=query.page_size, page_token=query.page_token)
    with acting_as(caller):
        answer = await parts(request).stubs.versions.ListVersions(asked)
    found = [schemas.version_view(version) for version in answer.versions]
    return json_answer({"versions": found, "next_page_token": answer.next_page_token})


@router.get(
    "/versions/{version_id}",
    summary="Get a version",
    response_model=schemas.Version,
    responses=refusals("VERSION_NOT_FOUND"),
)
async def get_version(
    request: Request, caller: SignedIn, flow_id: FlowId, version_id: Annotated[str, Path(description="The version.")]
) -> Response:
    """One version with its document."""
    with acting_as(caller):
        answer = await parts(request).stubs.versions.GetVersion(
            version_pb2.GetVersionRequest(flow_id=flow_id, version_id=version_id)
        )
    return json_answer(schemas.version_view(answer.version))
