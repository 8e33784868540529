"""Answers that are ready to go: JSON encoded once, validated by nobody (a test holds them against their schemas).

Decides: how JSON is written. Leaves: what it says to the schemas.
"""

from collections.abc import Mapping

import msgspec
from starlette.responses import Response

encode = msgspec.json.Encoder().encode


def json_answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer of a view."""
    return Response(encode(value), status, headers, "application/json")


def no_content() -> Response:
    """204: done, nothing to tell."""
    return Response(status_code=204)
