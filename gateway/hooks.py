"""The webhook routes, plain ASGI beside FastAPI: read the body under a cap, hand the request on, write the answer as it came.

    POST|GET|PUT|PATCH|DELETE /api/v1/webhooks/{flow_id}[/triggers/{trigger_id}][/sync|/simulate]

Decides: what counts as a webhook address, the cap and the time of a body, whose address the sender's is (trusted proxies),
what is answered when webhooks cannot be reached.
Leaves: everything about endpoints, proofs and runs to the webhooks service; carrying to chassis.streams.
Measured: about 0.03 ms of CPU a request besides the server's own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from math import ceil
from typing import Any, NamedTuple

import msgspec
from millrace.webhooks.v1 import ingest_pb2 as pb

from chassis.errors import Invalid, MillraceError, NotFound, TooLarge, Unavailable, to_problem

Scope = MutableMapping[str, Any]  # Any: the shape of ASGI
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Call = Callable[[pb.InboundWebhook], Awaitable[pb.OutboundAnswer]]
"""Hands one webhook to the webhooks service. `sequence` is whoever carries it to set. Raises: MillraceError."""

PREFIX = "/api/v1/webhooks/"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
DEFAULT_MAX_BODY_BYTES = 5 * 1024 * 1024

_MODES = {"sync": pb.INGEST_MODE_SYNC, "simulate": pb.INGEST_MODE_SIMULATE}
_ID_LENGTH = 64
_WITHOUT_BODY = frozenset({204, 304})
_JSON = (b"content-type", b"application/problem+json")


@dataclass(frozen=True, slots=True)
class HookLimits:
    """What the webhook routes allow; the gateway's settings fill it."""

    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    """Over it: 413, as soon as the content length or the bytes received say so."""
    body_timeout_s: float = 30.0
    """How long a sender may take to upload a body."""
    answer_timeout_s: float = 60.0
    """How long webhooks may take to answer, the wait for a run included."""
    trusted_proxies: Sequence[str] = ()
    """Addresses or networks whose `x-forwarded-for` is believed."""


class Address(NamedTuple):
    """What a webhook path names; not yet checked to exist."""

    flow_id: str
    trigger_id: str
    mode: pb.IngestMode


class BodyTooSlow(Invalid):
    """The sender took too long to upload the body."""

    http, title = 408, "Upload too slow"


class MethodNotAllowed(Invalid):
    """No webhook takes this method."""

    http, title = 405, "Method not allowed"


class Hooks:
    """The ASGI application of the webhook routes."""

    def __init__(self, call: Call, limits: HookLimits = HookLimits()) -> None:  # noqa: B008  # frozen, hence shareable
        self._call = call
        self._limits = limits
        self._proxies = tuple(ip_network(proxy, strict=False) for proxy in limits.trusted_proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        try:
            hook = await self._inbound(scope, receive)
            if hook is None:
                return  # the sender went away while it uploaded; nothing was handed on
            async with asyncio.timeout(self._limits.answer_timeout_s):
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
            remote_address=self._remote(scope, headers),
        )

    async def _read(self, headers: Iterable[tuple[bytes, bytes]], receive: Receive) -> bytes | None:
        most = self._limits.max_body_bytes
        for name, value in headers:
            if name == b"content-length" and (not value.isdigit() or int(value[:20]) > most):
                raise _too_large(most)
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                return await _body(receive, most)
        except TimeoutError:
            seconds = self._limits.body_timeout_s
            raise BodyTooSlow(
                "BODY_TOO_SLOW", f"The body did not arrive within {seconds:g} s. Send it again."
            ) from None

    def _remote(self, scope: Scope, headers: Iterable[tuple[bytes, bytes]]) -> str:
        client = scope.get("client")
        address: str = client[0] if client else ""
        if not self._proxies or not _within(address, self._proxies):
            return address
        named = b",".join(value for name, value in headers if name == b"x-forwarded-for").decode("latin-1")
        # From the right, because only what our own proxies appended is true: the first that is none of them is the sender.
        for hop in reversed([hop.strip() for hop in named.split(",") if hop.strip()]):
            if not _within(hop, self._proxies):
                return hop[:64]
            address = hop
        return address


def address_of(path: str) -> Address:
    """What a path below `PREFIX` names. Raises: NotFound ENDPOINT_NOT_FOUND when it is no webhook address."""
    parts = path.removeprefix(PREFIX).split("/")
    mode = pb.INGEST_MODE_ASYNC
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
    headers = [_JSON, (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store")]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, ceil(error.retry_after_s))))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(METHODS).encode()))
    if isinstance(error, TooLarge | BodyTooSlow):
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    await send({"type": "http.response.start", "status": error.http, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _within(address: str, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


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
