"""Connections of the caller's project.

Decides: the addresses and the form of the answers. Leaves: everything else to auth.
"""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from millrace.auth.v1 import connection_pb2

from chassis.identity import acting_as
from gateway.answers import json_answer, no_content
from gateway.bodies import read_json
from gateway.openapi import json_body, read_of
from gateway.parts import SignedIn, parts
from gateway.queries import PageQuery, read_query
from gateway.refusals import refusals
from gateway.schemas import connections as schemas

router = APIRouter(prefix="/api/v1/connections", tags=["connections"])

ConnectionId = Annotated[str, Path(description="The connection.")]


@router.post(
    "",
    status_code=201,
    summary="Create a connection",
    response_model=schemas.Connection,
    responses=refusals("CONNECTION_NAME_TAKEN", body=True),
    openapi_extra=json_body(schemas.CreateConnectionBody),
)
async def create_connection(request: Request, caller: SignedIn) -> Response:
    """Stores a secret, encrypted. It is used by runs and never shown again."""
    body = await read_json(request, schemas.CreateConnectionBody)
    asked = connection_pb2.CreateConnectionRequest(
        name=body.name,
        kind=connection_pb2.ConnectionKind.ValueType(schemas.KIND_NUMBERS[body.kind]),
        secret=body.secret,
    )
    with acting_as(caller):
        answer = await parts(request).stubs.connections.CreateConnection(asked)
    location = {"location": f"/api/v1/connections/{answer.connection.id}"}
    return json_answer(schemas.connection_view(answer.connection), 201, location)


@router.get(
    "",
    summary="List connections",
    response_model=schemas.ConnectionPage,
    responses=refusals("PAGE_TOKEN_INVALID"),
    openapi_extra=read_of(PageQuery),
)
async def list_connections(request: Request, caller: SignedIn) -> Response:
    """The connections of the project, newest first."""
    query = read_query(request, PageQuery)
    with acting_as(caller):
        answer = await parts(request).stubs.connections.ListConnections(
            connection_pb2.ListConnectionsRequest(page_size=query.page_size, page_token=query.page_token)
        )
    found = [schemas.connection_view(connection) for connection in answer.connections]
    return json_answer({"connections": found, "next_page_token": answer.next_page_token})


@router.get(
    "/{connection_id}",
    summary="Get a connection",
    response_model=schemas.Connection,
    responses=refusals("CONNECTION_NOT_FOUND"),
)
async def get_connection(request: Request, caller: SignedIn, connection_id: ConnectionId) -> Response:
    """One connection, without its secret."""
    with acting_as(caller):
        answer = await parts(request).stubs.connections.GetConnection(
            connection_pb2.GetConnectionRequest(connection_id=connection_id)
        )
    return json_answer(schemas.connection_view(answer.connection))


@router.put(
    "/{connection_id}/secret",
    summary="Replace the secret",
    response_model=schemas.Connection,
    responses=refusals("CONNECTION_NOT_FOUND", body=True),
    openapi_extra=json_body(schemas.ReplaceSecretBody),
)
async def replace_secret(request: Request, caller: SignedIn, connection_id: ConnectionId) -> Response:
    """Puts another secret in the place of the old one; runs that start later use it."""
    body = await read_json(request, schemas.ReplaceSecretBody)
    with acting_as(caller):
        answer = await parts(request).stubs.connections.ReplaceSecret(
            connection_pb2.ReplaceSecretRequest(connection_id=connection_id, secret=body.secret)
        )
    return json_answer(schemas.connection_view(answer.connection))


@router.delete(
    "/{connection_id}",
    status_code=204,
    summary="Delete a connection",
    responses=refusals("CONNECTION_NOT_FOUND"),
)
async def delete_connection(request: Request, caller: SignedIn, connection_id: ConnectionId) -> Response:
    """Deletes a connection for good; runs that need it fail from then on."""
    with acting_as(caller):
        await parts(request).stubs.connections.DeleteConnection(
            connection_pb2.DeleteConnectionRequest(connection_id=connection_id)
        )
    return no_content()
