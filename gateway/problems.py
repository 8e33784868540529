"""Errors over HTTP: problem+json (RFC 9457) for everything that is refused or fails.

Decides: the HTTP status where it is finer than the error's class (faults give 422, a broken body 400), the headers that
go with an error, and how FastAPI's own refusals (no route, wrong method, malformed request) become problems.
Leaves: reasons and sentences to whoever raises, the document's fields to chassis/errors.py.
Holds: no answer repeats a request's values, which may be secrets, and no stack leaves the process.
"""

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from chassis.errors import Fault, Internal, Invalid, MillraceError, NotFound, TooLarge, Unauthenticated, to_problem

MEDIA_TYPE = "application/problem+json"


class Malformed(Invalid):
    """The body cannot be read at all: broken JSON, not UTF-8."""


class UnsupportedMediaType(Invalid):
    """The body is of a kind that this route does not take."""

    http, title = 415, "Unsupported media type"


class MethodNotAllowed(Invalid):
    """The address exists, but not with this method."""

    http, title = 405, "Method not allowed"


class TooSlow(Invalid):
    """The body did not arrive in time."""

    http, title = 408, "Took too long to arrive"


def status_of(error: MillraceError) -> int:
    """The HTTP status of an error: a request that was read but has faults is 422, not 400."""
    return 422 if error.http == 400 and error.faults else error.http


def problem_answer(error: MillraceError, headers: Mapping[str, str] | None = None) -> Response:
    """The HTTP answer for an error."""
    status = status_of(error)
    document = to_problem(error) | {"status": status}
    answer = Response(msgspec.json.encode(document), status, headers, MEDIA_TYPE)
    if error.retry_after_s is not None:
        answer.headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, Unauthenticated):
        answer.headers["www-authenticate"] = 'Bearer realm="millrace"'
    return answer


def internal_error(reference: str) -> Internal:
    """What a client sees of a fault of ours."""
    return Internal(
        "INTERNAL",
        f"Something went wrong inside Millrace. The operator finds the cause in the log under {reference}.",
        reference=reference,
    )


def install(app: FastAPI) -> None:
    """Lets every refusal of an application leave as a problem."""
    app.add_exception_handler(MillraceError, _from_error)
    app.add_exception_handler(RequestValidationError, _from_validation)
    app.add_exception_handler(HTTPException, _from_framework)


async def _from_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, MillraceError)  # noqa: S101  # registered for this class alone
    return problem_answer(error)


async def _from_validation(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # registered for this class alone
    return problem_answer(request_invalid([_fault(one) for one in error.errors()[:20]]))


async def _from_framework(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for this class alone
    refusal: MillraceError
    if error.status_code == HTTPStatus.NOT_FOUND:
        refusal = NotFound(
            "ROUTE_NOT_FOUND", "There is nothing at this address. /api/v1/openapi.json lists what there is."
        )
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        refusal = MethodNotAllowed(
            "METHOD_NOT_ALLOWED", "This address does not take this method; `Allow` names those it does."
        )
    elif error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        refusal = TooLarge("BODY_TOO_LARGE", "The body of the request is too large.")
    else:
        refusal = Malformed("BODY_UNREADABLE", "The body of the request cannot be read. Send JSON (RFC 8259) in UTF-8.")
    return problem_answer(refusal, error.headers)


def broken_json(what: str, position: int) -> Malformed:
    """The refusal of a body that is not JSON; `position` counts from 0."""
    return Malformed(
        "JSON_BROKEN",
        f"The body is not JSON: {what} at position {position}. Mend it and send it again.",
        position=position,
    )


def unsupported(*taken: str) -> UnsupportedMediaType:
    """The refusal of a body of another kind than `taken`."""
    return UnsupportedMediaType(
        "MEDIA_TYPE_UNSUPPORTED", f"This route takes {' or '.join(taken)}. Say so in the Content-Type header."
    )


def request_invalid(faults: Sequence[Fault]) -> Invalid:
    """The refusal of a request that was read but cannot be right."""
    named = "; ".join(f"{fault.field}: {fault.message}" for fault in faults[:3])
    more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
    return Invalid("REQUEST_INVALID", f"The request is not valid: {named}{more}.", faults=faults)


def is_json(content_type: str) -> bool:
    """Whether a Content-Type header says JSON."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _fault(found: Mapping[str, Any]) -> Fault:
    """One finding of pydantic; its `input` stays behind."""
    place, *path = found["loc"]
    field = ".".join(str(part) for part in path) if path else str(place)
    return Fault(field=field[:200], message=found["msg"], reason=found["type"].upper())
