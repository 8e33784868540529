"""The live view: progress of a project's runs over a WebSocket, as it becomes durable.

Decides: how a socket proves who it is (a subprotocol or its first message, never the address, which ends up in logs);
what it is sent; that a slow reader loses the oldest progress and is told how much; when it is closed: at the token's
expiry (a fresh token sent in time prolongs it), at the end of the session, when it stays silent at the start.
Leaves: what progress is to the executor; who may watch to its permission.
Holds: what waits for one reader is bounded. A socket carries no cookie, so another site's page has nothing to abuse.
"""

import asyncio
from collections import deque

import msgspec
import structlog
from millrace.executor.v1 import run_pb2
from starlette.websockets import WebSocket, WebSocketDisconnect

from chassis.errors import MillraceError, Unauthenticated
from chassis.identity import Caller, acting_as
from gateway.parts import Parts
from gateway.schemas.runs import progress_view
from gateway.tokens import Verified

_log = structlog.get_logger(__name__)

PROTOCOL = "millrace.live.v1"
_TOKEN_PREFIX = "bearer."  # noqa: S105  # a prefix, not a token
FIRST_MESSAGE_WITHIN_S = 10.0
MAX_WAITING = 1000
"""Items of progress that may wait for one reader."""
_MAX_A_MESSAGE = 100
_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0)

CLOSE_DONE, CLOSE_BUSY = 1000, 1013
CLOSE_INVALID, CLOSE_UNAUTHENTICATED, CLOSE_DENIED, CLOSE_NOT_FOUND, CLOSE_SILENT = 4400, 4401, 4403, 4404, 4408
_CLOSE_CODES = {400: CLOSE_INVALID, 401: CLOSE_UNAUTHENTICATED, 403: CLOSE_DENIED, 404: CLOSE_NOT_FOUND}


class _Authenticate(msgspec.Struct, tag_field="type", tag="authenticate", forbid_unknown_fields=True):
    """The one message that a client sends."""

    token: str


_decode = msgspec.json.Decoder(_Authenticate).decode
_encode = msgspec.json.Encoder().encode


class Waiting:
    """Progress that waits for a reader. The oldest gives way when there is too much."""

    def __init__(self, most: int = MAX_WAITING) -> None:
        self._items: deque[run_pb2.RunProgress] = deque()
        self._most = most
        self._dropped = 0
        self._there_is = asyncio.Event()

    def add(self, answer: run_pb2.WatchRunsResponse) -> None:
        """What the executor sent, with what it left out itself."""
        self._items.extend(answer.progress)
        self._dropped += answer.dropped
        while len(self._items) > self._most:
            self._items.popleft()
            self._dropped += 1
        self._there_is.set()

    async def take(self) -> tuple[int, list[run_pb2.RunProgress]]:
        """How many were dropped since the last time, and what comes next; waits for either."""
        await self._there_is.wait()
        dropped, self._dropped = self._dropped, 0
        taken = [self._items.popleft() for _ in range(min(len(self._items), _MAX_A_MESSAGE))]
        if not self._items:
            self._there_is.clear()
        return dropped, taken


class Live:
    """Serves the sockets of this process."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._open = 0

    async def serve(self, socket: WebSocket) -> None:
        """One socket, from its opening handshake to its close."""
        if self._open >= self._parts.settings.live_connections:
            await socket.close(CLOSE_BUSY, "Too many live views are open. Try again later.")
            return
        self._open += 1
        try:
            await self._serve(socket)
        except WebSocketDisconnect:
            return
        except MillraceError as error:
            await _close(socket, _CLOSE_CODES.get(error.http, CLOSE_BUSY), error.message)
        finally:
            self._open -= 1

    async def _serve(self, socket: WebSocket) -> None:
        offered = socket.scope.get("subprotocols", [])
        await socket.accept(PROTOCOL if PROTOCOL in offered else None)
        verified = await self._authenticated(socket, offered)
        caller = verified.caller(socket.query_params.get("project_id", ""))
        asked = run_pb2.WatchRunsRequest(
            flow_id=socket.query_params.get("flow_id", ""), run_id=socket.query_params.get("run_id", "")
        )
        waiting = Waiting()
        with self._parts.tokens.until_ended(verified.session_id) as ended:
            tasks = {
                asyncio.create_task(self._pump(caller, asked, waiting, socket)),
                asyncio.create_task(_send(socket, waiting)),
                asyncio.create_task(self._stay(socket, verified)),
                asyncio.create_task(_until(ended)),
            }
            await _first_of(tasks)

    async def _authenticated(self, socket: WebSocket, offered: list[str]) -> Verified:
        """Whom the socket's token proves. Raises: Unauthenticated."""
        token = next((name.removeprefix(_TOKEN_PREFIX) for name in offered if name.startswith(_TOKEN_PREFIX)), None)
        if token is None:
            try:
                async with asyncio.timeout(FIRST_MESSAGE_WITHIN_S):
                    token = await _token(socket)
            except TimeoutError:
                await _close(socket, CLOSE_SILENT, "No token came. Send it at once.")
                raise WebSocketDisconnect(CLOSE_SILENT) from None
        return await self._parts.tokens.verified(token)

    async def _stay(self, socket: WebSocket, verified: Verified) -> None:
        """Listens for fresh tokens. Raises: Unauthenticated at expiry; WebSocketDisconnect when the client leaves."""
        while True:
            left_s = verified.expires_at_s - self._parts.clock.now_ms() / 1000
            try:
                async with asyncio.timeout(max(0.0, left_s)):
                    token = await _token(socket)
            except TimeoutError:
                raise Unauthenticated(
                    "TOKEN_EXPIRED", "The access token has expired. Connect with a fresh one."
                ) from None
            fresh = await self._parts.tokens.verified(token)
            if (fresh.user_id, fresh.session_id) != (verified.user_id, verified.session_id):
                raise Unauthenticated("TOKEN_INVALID", "This token is of another session. Connect anew.")
            verified = fresh

    async def _pump(self, caller: Caller, asked: run_pb2.WatchRunsRequest, waiting: Waiting, socket: WebSocket) -> None:
        """Moves progress from the executor into `waiting`; begins again when the executor was away, and says so."""
        failures = 0
        await _say(socket, {"type": "ready"})
        while True:
            try:
                with acting_as(caller):
                    stream = self._parts.stubs.runs.WatchRuns(asked)
                async for answer in stream:
                    failures = 0
                    waiting.add(answer)
            except MillraceError as error:
                if not error.retryable:
                    raise
                _log.info("live_interrupted", reason=error.reason)
            await _say(socket, {"type": "interrupted"})
            await asyncio.sleep(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])
            failures += 1


async def _send(socket: WebSocket, waiting: Waiting) -> None:
    while True:
        dropped, taken = await waiting.take()
        if dropped:
            await _say(socket, {"type": "dropped", "dropped": dropped})
        if taken:
            await _say(socket, {"type": "progress", "progress": [progress_view(item) for item in taken]})


async def _say(socket: WebSocket, message: dict[str, object]) -> None:
    await socket.send_text(_encode(message).decode())


async def _token(socket: WebSocket) -> str:
    """The token of the next message. Raises: Unauthenticated when it is no such message."""
    try:
        return _decode(await socket.receive_text()).token
    except (msgspec.DecodeError, KeyError, UnicodeError, RecursionError):
        raise Unauthenticated(
            "MESSAGE_UNKNOWN", 'The only message is {"type": "authenticate", "token": "…"}. Connect again.'
        ) from None


async def _until(ended: asyncio.Event) -> None:
    await ended.wait()
    raise Unauthenticated("SESSION_ENDED", "This session has ended. Sign in again.")


async def _first_of(tasks: "set[asyncio.Task[None]]") -> None:
    """Waits for the first task that ends (they only end by raising), ends the others, raises what it raised."""
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _close(socket: WebSocket, code: int, why: str) -> None:
    """Closes a socket; the reason of a close frame holds 123 bytes."""
    try:
        await socket.close(code, why.encode()[:123].decode("utf-8", "ignore"))
    except (RuntimeError, WebSocketDisconnect):
        return  # it is closed already
