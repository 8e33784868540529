"""The refusals that OpenAPI documents: one example a reason, told under the status it comes with.

Decides: which statuses an operation names. `refusals("FLOW_NOT_FOUND")` gives those reasons and what can befall any
request: not read (400), not allowed in (401), not right (422), not now (429, 503).
Leaves: raising them, and their real sentences, to the services.
"""

from typing import Any

from chassis.errors import (
    Conflict,
    Fault,
    Invalid,
    Limited,
    MillraceError,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unprocessable,
    to_problem,
)
from gateway.problems import MEDIA_TYPE, Malformed, UnsupportedMediaType, status_of

_ID = "0197c1f0-6a1e-7c3a-9d5b-0f3c2f6d1e04"
_FAULT = Fault(step_id="fetch", field="input.url", message="is required", reason="INPUT_MISSING")

EXAMPLES: dict[str, MillraceError] = {
    error.reason: error
    for error in (
        Unauthenticated(
            "SIGN_IN_FIRST", "This needs a signed-in caller. Send the access token as `Authorization: Bearer`."
        ),
        Unauthenticated("WRONG_CREDENTIALS", "Address or password is wrong."),
        Unauthenticated("REFRESH_REFUSED", "This refresh token is unknown, spent or expired, or its session ended."),
        NotFound("PROJECT_NOT_FOUND", "You are in no project with this id. GET /api/v1/me lists yours."),
        NotFound("FLOW_NOT_FOUND", f"There is no flow {_ID} in this project."),
        NotFound("VERSION_NOT_FOUND", f"There is no version {_ID} of this flow."),
        NotFound("RUN_NOT_FOUND", f"There is no run {_ID} in this project."),
        NotFound("CONNECTION_NOT_FOUND", f"There is no connection {_ID} in this project."),
        Conflict("EMAIL_TAKEN", "There is an account for ada@example.org already. Sign in instead."),
        Conflict("CONNECTION_NAME_TAKEN", "This project has a connection 'billing_api' already. Choose another name."),
        Conflict("DRAFT_STALE", "The draft is at revision 4, this edit was made on 3. Reload it and repeat."),
        Conflict("FLOW_NOT_PUBLISHED", "This flow has no version yet. Publish its draft first."),
        Unprocessable("DRAFT_INVALID", "The draft has 1 fault that must be mended first.", faults=[_FAULT]),
        Invalid(
            "DOCUMENT_INVALID", "The document cannot be read: line 3, column 1: a key is repeated.", line=3, column=1
        ),
        Invalid("OPERATION_INVALID", "Operation 1 names a step that the draft does not have."),
        Invalid(
            "REQUEST_INVALID",
            "The request is not valid: name: is required.",
            faults=[Fault(field="name", message="is required")],
        ),
        Invalid("PAGE_TOKEN_INVALID", "The page token does not belong to this list. Leave it out for the first page."),
        Malformed("JSON_BROKEN", "The body is not JSON: Expecting ',' delimiter at position 17.", position=17),
        UnsupportedMediaType("MEDIA_TYPE_UNSUPPORTED", "This route takes application/json. Say so in Content-Type."),
        TooLarge("BODY_TOO_LARGE", "The body is larger than 2097152 bytes, the most that this route takes."),
        Limited(
            "TOO_MANY_ATTEMPTS", "There were too many attempts. Wait as long as `Retry-After` says.", retry_after_s=300
        ),
        Unavailable("DATABASE_AWAY", "The database cannot be reached. Repeat in a moment.", retry_after_s=1),
    )
}
_BODY = ("JSON_BROKEN", "BODY_TOO_LARGE", "MEDIA_TYPE_UNSUPPORTED")
_PROJECT = ("SIGN_IN_FIRST", "PROJECT_NOT_FOUND")
_ANY = ("REQUEST_INVALID", "DATABASE_AWAY")


def refusals(*reasons: str, body: bool = False, public: bool = False) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an operation for its own reasons and those that can befall any (with a body; signed in)."""
    everything = dict.fromkeys((*reasons, *(() if public else _PROJECT), *(_BODY if body else ()), *_ANY))
    by_status: dict[int | str, dict[str, Any]] = {}
    for reason in everything:
        error = EXAMPLES[reason]
        status = status_of(error)
        documented = by_status.setdefault(status, _documented(error))
        documented["content"][MEDIA_TYPE]["examples"][reason] = {
            "summary": reason,
            "value": to_problem(error) | {"status": status},
        }
    return by_status


def _documented(error: MillraceError) -> dict[str, Any]:
    documented: dict[str, Any] = {
        "description": error.title,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}},
    }
    if error.retry_after_s is not None:
        documented["headers"] = {
            "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
        }
    return documented
