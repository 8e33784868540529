"""The webhook routes, plain ASGI beside FastAPI: body under a cap, request handed on, answer written as it came.

    POST|GET|PUT|PATCH|DELETE /api/v1/webhooks/{flow_id}[/triggers/{trigger_id}][/sync|/simulate]

Decides: what counts as a webhook address, the cap and the time of a body, what is answered when webhooks is away.
Leaves: everything about endpoints, proofs and runs to the webhooks service; gathering requests into few messages to
chassis.streams; whose address the sender's is to addresses.py.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from millrace.webhooks.v1 import ingest_pb2 as pb
from starlette.types import Receive, Scope, Send

from chassis.errors import MillraceError, NotFound, TooLarge, Unavailable, to_problem
from chassis.streams import BatchedCalls
from gateway.addresses import Senders
from gateway.problems import MEDIA_TYPE, MethodNotAllowed, TooSlow
from gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from millrace.webhooks.v1.ingest_pb2_grpc import IngestServiceAsyncStub

Call = Callable[[pb.InboundWebhook], Awaitable[pb.OutboundAnswer]]
"""Hands one webhook to the webhooks service; whoever carries it sets `sequence`. Raises: MillraceError."""
Calls = BatchedCalls[pb.InboundWebhook, pb.IngestRequest, pb.IngestResponse, pb.OutboundAnswer]

PREFIX = "/api/v1/webhooks/"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

_MODES = {"sync": pb.INGEST_MODE_SYNC, "simulate": pb.INGEST_MODE_SIMULATE}
_ID_LENGTH = 64
_WITHOUT_BODY = frozenset({204, 304})


class Address(NamedTuple):
    """What a webhook path names; not yet checked to exist."""

    flow_id: str
    trigger_id: str
    mode: pb.IngestMode.ValueType


def ingest_calls(webhooks: "IngestServiceAsyncStub") -> Calls:
    """The standing stream to webhooks that carries all requests of this process; enter it before its first call."""
    return BatchedCalls(
        webhooks.Ingest,
        _request,
        lambda response: [(answer.sequence, answer) for answer in response.answers],
        name="webhooks",
        size_of=lambda hook: len(hook.body),
    )


def _request(gathered: list[tuple[int, pb.InboundWebhook]]) -> pb.IngestRequest:
    for sequence, hook in gathered:
        hook.sequence = sequence
    return pb.IngestRequest(webhooks=[hook for _, hook in gathered])


class Hooks:
    """The ASGI application of the webhook routes."""

    def __init__(self, call: Call, senders: Senders, settings: GatewaySettings) -> None:
        self._call = call
        self._senders = senders
        self._max_body_bytes = settings.webhook_body_limit_bytes
        self._body_timeout_s = settings.body_timeout_s
        self._answer_timeout_s = settings.webhook_answer_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        try:
            hook = await self._inbound(scope, receive)
            if hook is None:
                return  # the sender went away while it uploaded; nothing was handed on
            async with asyncio.timeout(self._answer_timeout_s):
                answer = await self._call(hook)
        except TimeoutError:
            await _refuse(send, _no_answer())
        except MillraceError as error:
            await _refuse(send, error)
        else:
            await _write(send, answer)

    async def _inbound(self, scope: Scope, receive: Receive) -> pb.InboundWebhook | None:
        method: str = scope["method"]
        address = address_of(scope["path"])
        if method not in METHODS:
            allow = ", ".join(METHODS)
            raise MethodNotAllowed("METHOD_NOT_ALLOWED", f"Webhooks take {allow}, not {method[:20]}.", allow=allow)
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        body = await self._read(headers, receive)
        if body is None:
            return None
        return pb.InboundWebhook(
            flow_id=address.flow_id,
            trigger_id=address.trigger_id,
            mode=address.mode,
            method=method,
            headers=[pb.Header(name=name.decode("latin-1"), value=value.decode("latin-1")) for name, value in headers],
            query=scope["query_string"].decode("latin-1"),
            body=body,
            remote_address=self._senders.address(scope),
        )

    async def _read(self, headers: Iterable[tuple[bytes, bytes]], receive: Receive) -> bytes | None:
        most = self._max_body_bytes
        for name, value in headers:
            if name == b"content-length" and (not value.isdigit() or int(value[:20]) > most):
                raise _too_large(most)
        try:
            async with asyncio.timeout(self._body_timeout_s):
                return await _body(receive, most)
        except TimeoutError:
            seconds = self._body_timeout_s
            raise TooSlow("BODY_TOO_SLOW", f"The body did not arrive within {seconds:g} s. Send it again.") from None


def address_of(path: str) -> Address:
    """What a path below `PREFIX` names. Raises: NotFound ENDPOINT_NOT_FOUND when it is no webhook address."""
    parts = path.removeprefix(PREFIX).split("/")
    mode: pb.IngestMode.ValueType = pb.INGEST_MODE_ASYNC
    if len(parts) in (2, 4) and parts[-1] in _MODES:
        mode = _MODES[parts.pop()]
    if len(parts) == 3 and parts[1] == "triggers" and parts[2]:
        trigger_id = parts[2]
    elif len(parts) == 1:
        trigger_id = ""
    else:
        raise _unknown()
    if not 0 < len(parts[0]) <= _ID_LENGTH or len(trigger_id) > _ID_LENGTH:
        raise _unknown()
    return Address(parts[0], trigger_id, mode)


async def _body(receive: Receive, most: int) -> bytes | None:
    message = await receive()
    if message["type"] == "http.disconnect":
        return None
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        if len(body) > most:
            raise _too_large(most)
        return body
    parts, size = [body], len(body)
    while message.get("more_body"):
        if size > most:
            raise _too_large(most)
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part: bytes = message.get("body", b"")
        parts.append(part)
        size += len(part)
    if size > most:
        raise _too_large(most)
    return b"".join(parts)


async def _write(send: Send, answer: pb.OutboundAnswer) -> None:
    headers = [(header.name.encode("latin-1"), header.value.encode("latin-1")) for header in answer.headers]
    body = b"" if answer.status in _WITHOUT_BODY else answer.body
    if answer.status not in _WITHOUT_BODY:
        headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _refuse(send: Send, error: MillraceError) -> None:
    body = msgspec.json.encode(to_problem(error))
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, ceil(error.retry_after_s))))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(METHODS).encode()))
    if isinstance(error, TooLarge | TooSlow):
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    await send({"type": "http.response.start", "status": error.http, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _unknown() -> NotFound:
    return NotFound("ENDPOINT_NOT_FOUND", "There is no webhook at this address. Compare it with the flow's trigger.")


def _too_large(most: int) -> TooLarge:
    return TooLarge(
        "BODY_TOO_LARGE", f"The body is larger than the {most} bytes that a webhook may have.", max_bytes=most
    )


def _no_answer() -> Unavailable:
    return Unavailable(
        "WEBHOOKS_AWAY",
        "The event was handed on, but whether it was stored is unknown. Send it again.",
        retry_after_s=1.0,
    )
