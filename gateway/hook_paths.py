"""The webhook routes as OpenAPI path items, since FastAPI does not see them (hooks.py answers them).

Decides: what the document tells about them. Leaves: what they do to hooks.py and the webhooks service.
"""

from typing import Any

from chassis.errors import MillraceError, to_problem
from gateway.hooks import METHODS, PREFIX
from gateway.problems import MEDIA_TYPE

_RUN_ID = "0197c1f0-6a1e-7c3a-9d5b-0f3c2f6d1e04"
_RUN_HEADER = {
    "X-Millrace-Run-Id": {"description": "The run.", "schema": {"type": "string", "format": "uuid"}},
}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}}
_ANY_BODY = {"schema": {}, "example": {"order": 17, "paid": True}}

_REFUSALS = {
    400: (
        "The body is not what its type says",
        "JSON_INVALID",
        "The body is not valid JSON at line 1, column 8 (byte 7).",
    ),
    401: ("The sender did not prove itself", "SIGNATURE_INVALID", "The request is not signed as this webhook expects."),
    404: ("No such webhook", "ENDPOINT_NOT_FOUND", "There is no webhook at this address."),
    405: ("Method not allowed", "METHOD_NOT_ALLOWED", "This webhook takes POST, not GET."),
    408: ("Too slow", "BODY_TOO_SLOW", "The body did not arrive within 30 s. Send it again."),
    409: ("The flow is switched off", "FLOW_DISABLED", "The flow behind this webhook is switched off. Enable it."),
    410: ("The flow was deleted", "FLOW_DELETED", "The flow behind this webhook was deleted."),
    413: ("The body is too large", "BODY_TOO_LARGE", "The body is larger than 5242880 bytes."),
    415: ("A type or encoding that is not taken", "ENCODING_UNSUPPORTED", "Compressed bodies are not taken."),
    429: ("Too many simulations at once", "SIMULATIONS_BUSY", "Too many simulations run at once."),
    503: ("Nothing was stored; send it again", "LOG_AWAY", "The event could not be stored. Send it again in a moment."),
}
_DRAFT_INVALID = ("The draft has faults", "DRAFT_INVALID", "The draft has a fault to mend before it can run.")
_ACCEPTED = {
    "description": "The event is stored and will become a run; it is never lost from here on.",
    "headers": _RUN_HEADER,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["run_id"],
                "properties": {"run_id": {"type": "string", "format": "uuid"}},
            },
            "example": {"run_id": _RUN_ID},
        }
    },
}
_ANSWERED = {
    "description": "The flow's answer: status, headers and body are what its steps say; any status is possible.",
    "headers": _RUN_HEADER,
    "content": {"*/*": {"schema": {}, "example": {"ok": True}}},
}
_WAYS = {
    "": ("Send an event", "Answers as soon as the event is stored. A duplicate gets the run of the first."),
    "/sync": ("Send an event and wait", "Waits for the flow's answer, 30 s at most: then 408, and the run goes on."),
    "/simulate": (
        "Try the draft",
        "Runs the draft as it is now, of a flow that is switched off too, and keeps the event as the trigger's sample. "
        "The draft's own settings say who may call: with `auth: none` whoever knows the address.",
    ),
}


def hook_paths() -> dict[str, dict[str, Any]]:
    """Path → path item, for every way to call a webhook."""
    return {
        f"{PREFIX}{{flow_id}}{trigger}{way}": _item(trigger, way)
        for trigger in ("", "/triggers/{trigger_id}")
        for way in _WAYS
    }


def _item(trigger: str, way: str) -> dict[str, Any]:
    parameters = [_parameter("flow_id", "The flow.", {"type": "string", "format": "uuid"})]
    if trigger:
        schema = {"type": "string", "minLength": 1, "maxLength": 64}
        parameters.append(_parameter("trigger_id", "Which of the flow's webhook triggers.", schema))
    return {"parameters": parameters, **{method.lower(): _operation(method, trigger, way) for method in METHODS}}


def _operation(method: str, trigger: str, way: str) -> dict[str, Any]:
    summary, description = _WAYS[way]
    name = (way or "/send")[1:]
    responses: dict[str, Any] = {str(status): _refusal(status, *told) for status, told in _REFUSALS.items()}
    if way == "/simulate":
        responses["422"] = _refusal(422, *_DRAFT_INVALID)
    responses["2XX" if way == "/sync" else "200"] = _ANSWERED if way == "/sync" else _ACCEPTED
    operation = {
        "tags": ["webhooks"],
        "summary": f"{summary} ({method}{', one of several triggers' if trigger else ''})",
        "description": f"{description} Any body up to the size limit; the trigger's settings say who may call.",
        "operationId": f"{name}_webhook_{method.lower()}{'_of_trigger' if trigger else ''}",
        "responses": responses,
    }
    if method != "GET":
        operation["requestBody"] = {"required": False, "content": {"application/json": _ANY_BODY}}
    return operation


def _parameter(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def _refusal(status: int, title: str, reason: str, detail: str) -> dict[str, Any]:
    example = to_problem(MillraceError(reason, detail)) | {"status": status, "title": title}
    told: dict[str, Any] = {
        "description": title,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}},
    }
    if status in (429, 503):
        told["headers"] = _RETRY_AFTER
    return told
