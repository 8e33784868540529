"""What surrounds every REST request: one plain ASGI layer, so that nothing is paid twice.

Decides: the security headers, the size and the time a body may take, that an unexpected fault is logged under a
reference and answered as a problem, and what is counted of each request.
Leaves: what is routed where to app.py. Webhooks do not pass here; they have their own limits (hooks.py).
"""

import asyncio
import secrets
from collections.abc import Callable
from time import perf_counter

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis.errors import TooLarge
from gateway.problems import TooSlow, internal_error, problem_answer

_log = structlog.get_logger(__name__)

SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
Record = Callable[[str, str, int, float], None]
"""Counts a request: method, route, status, seconds."""


class Shell:
    """The outermost layer around the REST application."""

    def __init__(self, app: ASGIApp, *, body_limit_bytes: int, body_timeout_s: float, record: Record) -> None:
        self._app, self._record = app, record
        self._limit, self._timeout_s = body_limit_bytes, body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = perf_counter(), 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                names = {name for name, _ in message["headers"]}
                message["headers"] += [header for header in SECURITY_HEADERS if header[0] not in names]
            await send(message)

        try:
            await self._app(scope, self._bounded(scope, receive), send_with_headers)
        except ClientDisconnect:
            _log.debug("client_left", path=scope["path"][:200])  # nobody is there to be answered
        except Exception as error:  # noqa: BLE001  # the last resort of a request: logged with its stack, answered with a reference
            reference = secrets.token_hex(4)
            _log.error("request_failed", path=scope["path"][:200], reference=reference, exc_info=error)
            if status == 0:
                await problem_answer(internal_error(reference))(scope, receive, send_with_headers)
        finally:
            self._record(scope["method"], _route(scope), status, perf_counter() - started)

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """`receive` that refuses a body which is too large or too slow."""
        if scope["method"] in ("GET", "HEAD"):
            return receive
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        oversized = not announced.isdigit() or len(announced) > 18 or int(announced) > self._limit
        deadline = perf_counter() + self._timeout_s
        got = 0

        async def receive_within_bounds() -> Message:
            nonlocal got
            if oversized:
                raise self._too_large()
            try:
                async with asyncio.timeout(max(0.0, deadline - perf_counter())):
                    message = await receive()
            except TimeoutError:
                raise TooSlow(
                    "BODY_TOO_SLOW", f"The body did not arrive within {self._timeout_s:g} s. Send it again."
                ) from None
            got += len(message.get("body", b""))
            if got > self._limit:
                raise self._too_large()
            return message

        return receive_within_bounds

    def _too_large(self) -> TooLarge:
        return TooLarge(
            "BODY_TOO_LARGE", f"The body is larger than {self._limit} bytes, the most that this route takes."
        )


def _route(scope: Scope) -> str:
    """The template of the matched route, so that metrics do not grow with ids."""
    return str(getattr(scope.get("route"), "path", "unmatched"))
