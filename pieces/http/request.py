"""The action `request`: one HTTP call.

Decides: how fields become a request, which statuses fail the step and which of those may be tried again, and the shape
of the output.
Leaves: which addresses are open, time and size to the platform's HTTP client.
Holds: a call that may change something carries the step's idempotency key (I4), unless the author set that header.
"""

from __future__ import annotations

import base64
import email.utils
import math
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec
from millrace_sdk import (
    ActionFailed,
    Checkbox,
    Context,
    Dropdown,
    Effect,
    Input,
    InputInvalid,
    Json,
    JsonValue,
    Number,
    ObjectOf,
    Piece,
    Response,
    Secret,
    Text,
    action,
)

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
Scalar = str | int | float | bool
QueryFields = dict[str, Scalar | list[Scalar] | None]

READING_METHODS = ("GET", "HEAD")
RETRYABLE_STATUSES = (408, 425, 429)
UNHEARD_STATUSES = (502, 504)
"""A gateway answered for a system it did not hear from: that system may have done the work."""
MAX_SHOWN_BODY = 2_000
"""So much of the body of a failed call is kept with the failure."""


class RequestInput(Input):
    """What to call, and how."""

    method: Annotated[Method, Dropdown("Method", "GET and HEAD look up, the others change something.")]
    url: Annotated[str, Text("URL", "With https:// or http://.", min_length=1, max_length=8_192)]
    headers: Annotated[dict[str, Scalar], ObjectOf("Headers")] = msgspec.field(default_factory=dict)
    query: Annotated[
        QueryFields,
        ObjectOf("Query", "Added to the URL; a list gives the name several times, null leaves it out."),
    ] = msgspec.field(default_factory=dict)
    body_type: Annotated[
        Literal["json", "text", "form", "none"],
        Dropdown("Body as", labels={"json": "JSON", "text": "Text", "form": "Form", "none": "No body"}),
    ] = "json"
    body: Annotated[Json, JsonValue("Body", "Any JSON; a text for text; names with values for a form.")] = None
    auth: Annotated[Literal["none", "basic", "bearer"], Dropdown("Authentication")] = "none"
    username: Annotated[str, Text("User", show_when={"auth": ["basic"]})] = ""
    password: Annotated[str, Secret("Password", show_when={"auth": ["basic"]})] = ""
    token: Annotated[str, Secret("Token", show_when={"auth": ["bearer"]})] = ""
    timeout_s: Annotated[float, Number("Time-out in seconds", "From connecting to the last byte.", ge=0.1, le=600)] = 30
    follow_redirects: Annotated[bool, Checkbox("Follow redirects", "Five at most.")] = True
    fail_on_status: Annotated[bool, Checkbox("Fail on an error status", "4xx and 5xx fail the step.")] = True

    def __post_init__(self) -> None:
        if self.auth == "bearer" and not self.token:
            raise ValueError("with auth bearer a token is needed")
        if self.auth == "basic" and not self.username:
            raise ValueError("with auth basic a username is needed")
        if self.auth != "none" and any(name.lower() == "authorization" for name in self.headers):
            raise ValueError("auth and a header Authorization exclude each other")


def effect_for(constant_input: Mapping[str, Json]) -> Effect:
    """`read` for a method that is known to look up only."""
    return "read" if constant_input.get("method") in READING_METHODS else "effect"


@action(
    title="HTTP request",
    summary="Calls any HTTP API and gives its status, headers and body.",
    effect="effect",
    on_interruption="retry",
    effect_for=effect_for,
)
async def request(ctx: Context, input: RequestInput) -> Json:
    """Call an API. Raises what `Http.request` raises, and ActionFailed HTTP_STATUS."""
    headers = {name: _plain(value) for name, value in input.headers.items()}
    body = _body(input, headers)
    _authenticate(input, headers)
    if input.method not in READING_METHODS and ctx.idempotency_key:
        _default(headers, "Idempotency-Key", ctx.idempotency_key)
    response = await ctx.http.request(
        input.method,
        _with_query(input.url, input.query),
        headers=headers,
        body=body,
        timeout=timedelta(seconds=input.timeout_s),
        max_redirects=5 if input.follow_redirects else 0,
    )
    if input.fail_on_status and response.status >= 400:
        raise _status_failed(input, response)
    return {"status": response.status, "headers": dict(response.headers), **_body_output(response)}


def _body(input: RequestInput, headers: dict[str, str]) -> bytes | None:
    """The body as bytes; sets its content type unless the author did."""
    if input.body is None or input.body_type == "none":
        return None
    if input.body_type == "json":
        _default(headers, "Content-Type", "application/json")
        return msgspec.json.encode(input.body)
    if input.body_type == "text":
        if isinstance(input.body, dict | list):
            raise InputInvalid("Field `body` must be a text for a text body. Or choose JSON.", field="body")
        _default(headers, "Content-Type", "text/plain; charset=utf-8")
        return _plain(input.body).encode()
    if not isinstance(input.body, dict):
        raise InputInvalid("Field `body` must be an object for a form: names with values.", field="body")
    _default(headers, "Content-Type", "application/x-www-form-urlencoded")
    return urlencode(_pairs(input.body, "body")).encode()


def _authenticate(input: RequestInput, headers: dict[str, str]) -> None:
    if input.auth == "bearer":
        headers["Authorization"] = f"Bearer {input.token}"
    elif input.auth == "basic":
        credentials = base64.b64encode(f"{input.username}:{input.password}".encode()).decode()
        headers["Authorization"] = f"Basic {credentials}"


def _with_query(url: str, query: QueryFields) -> str:
    pairs = _pairs(query, "query")
    if not pairs:
        return url
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InputInvalid(f"The URL cannot be read: {error}.", field="url") from error
    joined = "&".join(filter(None, (parts.query, urlencode(pairs))))
    return urlunsplit((parts.scheme, parts.netloc, parts.path, joined, parts.fragment))


def _pairs(values: QueryFields | dict[str, Json], field: str) -> list[tuple[str, str]]:
    pairs = []
    for name, value in values.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict | list):
                raise InputInvalid(f"Field `{field}.{name}` must be a text, a number or a list of them.", field=field)
            if item is not None:
                pairs.append((name, _plain(item)))
    return pairs


def _plain(value: Scalar | None) -> str:
    """A value as text the way JavaScript writes it, since that is what authors expect."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    return "" if value is None else str(value)


def _default(headers: dict[str, str], name: str, value: str) -> None:
    if not any(known.lower() == name.lower() for known in headers):
        headers[name] = value


def _body_output(response: Response) -> dict[str, Json]:
    """`body`: parsed JSON, text, or null; `body_base64` instead of it for what is neither."""
    if not response.body:
        return {"body": None}
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        try:
            return {"body": response.json()}
        except ValueError:
            return {"body": response.text()}
    if (
        kind.startswith("text/")
        or kind in ("application/xml", "application/x-www-form-urlencoded")
        or kind.endswith("+xml")
    ):
        return {"body": response.text()}
    try:
        return {"body": response.body.decode("utf-8")}
    except UnicodeDecodeError:
        return {"body": None, "body_base64": base64.b64encode(response.body).decode()}


def _status_failed(input: RequestInput, response: Response) -> ActionFailed:
    retryable = response.status in RETRYABLE_STATUSES or response.status >= 500
    parts = urlsplit(response.url)
    return ActionFailed(
        "HTTP_STATUS",
        f"{input.method} {parts.scheme}://{parts.netloc}{parts.path} answered with status {response.status}.",
        retryable=retryable,
        retry_after_s=retry_after_s(response.headers.get("retry-after", "")) if retryable else None,
        outcome_unknown=response.status in UNHEARD_STATUSES,
        details={"status": response.status, "body": response.text()[:MAX_SHOWN_BODY]},
    )


def retry_after_s(header: str) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date (RFC 9110, 10.2.3); None for anything else."""
    text = header.strip()
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return float(text)
    try:
        then = email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, float(math.ceil(then - time.time())))


piece = Piece(
    name="http",
    version="0.1.0",
    title="HTTP",
    summary="Calls any HTTP API.",
    actions=[request],
)
