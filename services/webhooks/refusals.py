"""Why a webhook was not taken: the errors of this domain, and how any error becomes an HTTP answer.

Decides: the HTTP statuses that only webhooks know (405, 408, 410, 415), and the form of every refusal (problem+json,
`Retry-After` where repeating may help).
Leaves: the sentences to whoever raises.
"""

import math
import secrets

import msgspec
import structlog
from millrace.webhooks.v1 import ingest_pb2 as pb

from chassis.errors import (
    DeadlineExceeded,
    Internal,
    Invalid,
    MillraceError,
    NotFound,
    Unauthenticated,
    Unavailable,
    to_problem,
)

_log = structlog.get_logger("webhooks")

PROBLEM_TYPE = "application/problem+json"


class Gone(NotFound):
    """The flow was deleted; its address will not come back."""

    http, title = 410, "Gone"


class MethodNotAllowed(Invalid):
    """The trigger does not take this method. `allow` lists those it takes."""

    http, title = 405, "Method not allowed"


class UnsupportedBody(Invalid):
    """The endpoint does not take a body of this type or encoding."""

    http, title = 415, "Unsupported media type"


class SyncTimeout(DeadlineExceeded):
    """The run did not answer in time; it goes on, and the problem names it."""

    http, title = 408, "The run takes longer than the request may wait"


SIGNATURE_INVALID = Unauthenticated(
    "SIGNATURE_INVALID", "The request is not signed as this webhook expects. Check the sender's secret and clock."
)
CREDENTIALS_INVALID = Unauthenticated(
    "CREDENTIALS_INVALID", "The request does not carry the credentials that this webhook expects."
)
"""One text each whatever is wrong: a refusal must not tell an attacker how near they came."""

for _refusal in (SIGNATURE_INVALID, CREDENTIALS_INVALID):
    _refusal.title = "Not accepted"  # type: ignore[misc]  # "Sign in first" would mislead a sender of webhooks


def busy(what: str, retry_after_s: float = 1.0) -> Unavailable:
    """Too much waits already; nothing was stored."""
    message = f"{what} Nothing was stored; send the event again."
    return Unavailable("WEBHOOKS_BUSY", message, retry_after_s=retry_after_s)


def internal(error: Exception) -> Internal:
    """What a sender is told of a fault of Millrace itself: a reference; the stack stands in the log beside it."""
    reference = secrets.token_hex(6)
    _log.error("webhook_failed", reference=reference, exc_info=error)
    return Internal("INTERNAL", f"This webhook failed inside Millrace. The log has the reason under {reference}.")


def to_answer(error: MillraceError, sequence: int) -> pb.OutboundAnswer:
    """The HTTP answer of a refusal."""
    headers = [pb.Header(name="content-type", value=PROBLEM_TYPE), pb.Header(name="cache-control", value="no-store")]
    if error.retry_after_s is not None:
        headers.append(pb.Header(name="retry-after", value=str(max(1, math.ceil(error.retry_after_s)))))
    if error.http == MethodNotAllowed.http:
        headers.append(pb.Header(name="allow", value=str(error.details.get("allow", ""))))
    if challenge := error.details.get("challenge"):
        headers.append(pb.Header(name="www-authenticate", value=str(challenge)))
    body = msgspec.json.encode(to_problem(error))
    return pb.OutboundAnswer(sequence=sequence, status=error.http, headers=headers, body=body)
