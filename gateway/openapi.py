"""The OpenAPI document: what FastAPI reads from the routes, completed into something worth reading.

Decides: the shape of problems; that every example of a schema also stands at the operations that use it; the header
that chooses the project; the paragraphs a newcomer reads first. Operations that are not FastAPI routes (the webhooks,
plain ASGI) are added by `document_of(app, more_paths=…)`.
Leaves: what each route says of itself to routes/, the webhooks to hook_paths.py.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from gateway.parts import SECURITY_SCHEME
from gateway.schemas.flows import DOCUMENT_EXAMPLE

Document = dict[str, Any]
_REFERENCE = "#/components/schemas/{name}"
PATH = "/api/v1/openapi.json"
VERSION = "1"

DESCRIPTION = """Millrace runs workflows: a webhook, a time or a person starts a flow, and its steps run without ever
being lost or repeated.

**Sign in** with `POST /api/v1/auth/sign-in` and send the access token as `Authorization: Bearer …`. It works for 15
minutes; exchange the refresh token for the next pair. A person in several projects names one with
`X-Millrace-Project`; otherwise the first counts.

**Errors** are problem documents (RFC 9457). `reason` is stable and made for programs, `detail` says what happened and
what to do; `faults` name each field or step. Things of other projects do not exist: 404.

**Lists** come in pages: send `next_page_token` as `page_token` until it is empty. A token is bound to its filters.

**Live view**: a WebSocket at `/api/v1/live` streams the progress of runs. Offer the subprotocols `millrace.live.v1` and
`bearer.<access token>`, or send `{"type": "authenticate", "token": "…"}` first; `project_id`, `flow_id` and `run_id` in
the query choose what to watch. Messages: `ready`, `progress` (runs and steps that changed), `dropped` (the reader was
too slow: read the list again), `interrupted` (the stream was cut and goes on). Send `authenticate` again with a fresh
token to stay; at its expiry the socket closes with 4401.
"""
TAGS = [
    {"name": "auth", "description": "Accounts, sessions, tokens and the keys that verify them."},
    {"name": "flows", "description": "Flows, their drafts and their published versions."},
    {"name": "webhooks", "description": "Where other systems send events."},
    {"name": "runs", "description": "What happened, and what is happening."},
    {"name": "connections", "description": "Secrets of other systems; they go in and never come out."},
    {"name": "pieces", "description": "What steps can be made of."},
    {"name": "health", "description": "For probes and monitoring."},
]

PROBLEM: Document = {
    "type": "object",
    "title": "Problem",
    "description": "Why a request was refused or failed (RFC 9457). Reasons add fields of their own.",
    "required": ["type", "title", "status", "detail", "reason"],
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "A URN of the reason."},
        "title": {"type": "string", "description": "The kind of problem."},
        "status": {"type": "integer", "description": "The HTTP status."},
        "detail": {"type": "string", "description": "What happened, to what, and what to do."},
        "reason": {"type": "string", "description": "Stable, upper snake case."},
        "retry_after_s": {"type": "number", "description": "When the same request may pass."},
        "faults": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "step_id": {"type": "string"},
                    "field": {"type": "string"},
                    "message": {"type": "string"},
                    "reason": {"type": "string"},
                },
            },
            "description": "Everything that is wrong, each with its field or step.",
        },
    },
}
_PROJECT_PARAMETER: Document = {
    "name": "X-Millrace-Project",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "format": "uuid"},
    "description": "Which of the caller's projects; leave it out for the first.",
}

_body_types: dict[str, type[msgspec.Struct]] = {}


def json_body(body_type: type[msgspec.Struct], *, required: bool = True) -> Document:
    """Documents the body that a route reads by `bodies.read_json`."""
    _body_types[body_type.__name__] = body_type
    content = {"application/json": {"schema": {"$ref": _REFERENCE.format(name=body_type.__name__)}}}
    return {"requestBody": {"required": required, "content": content}}


def read_of(query_type: type[msgspec.Struct] | None = None, path_id: str = "") -> Document:
    """Documents a read of one's project whose route takes nothing but the request (shortcuts.py)."""
    parameters: list[Document] = []
    if path_id:
        parameters.append({"name": path_id, "in": "path", "required": True, "schema": {"type": "string"}})
    if query_type is not None:
        _, components = msgspec.json.schema_components([query_type])
        for name, schema in components[query_type.__name__]["properties"].items():
            description = schema.pop("description", "")
            parameters.append({"name": name, "in": "query", "schema": schema, "description": description})
    return {"parameters": parameters, "security": [{SECURITY_SCHEME: []}]}


def document_body() -> Document:
    """Documents a body that is a flow document, JSON or YAML."""
    content = {
        "application/json": {"schema": {"type": "object"}, "example": DOCUMENT_EXAMPLE},
        "application/yaml": {
            "schema": {"type": "string"},
            "example": "schema: 1\nname: Greet\ntriggers:\n  - {id: in, piece: webhook, event: catch}\nsteps: []\n",
        },
    }
    return {"requestBody": {"required": True, "content": content}}


def document_of(app: FastAPI, more_paths: Mapping[str, Document]) -> Document:
    """The whole document. `more_paths`: OpenAPI path items of what is served beside FastAPI."""
    document = get_openapi(
        title="Millrace",
        version=VERSION,
        description=DESCRIPTION,
        tags=TAGS,
        routes=app.routes,
        openapi_version="3.1.0",
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    _, bodies = msgspec.json.schema_components(_body_types.values(), ref_template=_REFERENCE)
    for schema in bodies.values():
        schema["example"] = {
            name: field["examples"][0] for name, field in schema["properties"].items() if "examples" in field
        }
    schemas.update(bodies)
    schemas["Problem"] = PROBLEM
    document["paths"].update(more_paths)
    for item in document["paths"].values():
        for operation in item.values():
            if isinstance(operation, dict):
                _complete(operation, schemas)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document


def _complete(operation: Document, schemas: Document) -> None:
    if operation.get("security"):
        operation["security"] = [{SECURITY_SCHEME: []}]
        operation.setdefault("parameters", []).append(_PROJECT_PARAMETER)
    bodies = [operation.get("requestBody", {}), *operation.get("responses", {}).values()]
    for body in bodies:
        for content in body.get("content", {}).values():
            example = _example(content.get("schema", {}), schemas)
            if example is not None and "example" not in content and "examples" not in content:
                content["example"] = example


def _example(schema: Document, schemas: Document) -> object:
    """The example of the schema that a content is of, also when it may be null."""
    references = [schema, *schema.get("anyOf", ())]
    for reference in references:
        name = str(reference.get("$ref", "")).rpartition("/")[2]
        if name and (example := schemas.get(name, {}).get("example")) is not None:
            return example
    return None
