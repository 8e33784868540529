"""What comes before and around a body: request lines, headers, trailers, bounded in size and time.

Decides: how large the head of a request may be, how long it may take to arrive, and that what is no HTTP is answered
with a problem like everything else. The parser itself gathers a header of any size, and waits for it for ever.
Leaves: bodies to shell.py and hooks.py, connections between two requests to uvicorn's keep-alive.
"""

import asyncio

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from chassis.errors import MillraceError, TooLarge, to_problem
from gateway.problems import MEDIA_TYPE, Malformed, TooSlow

MAX_HEAD_BYTES = 128 * 1024
"""Of a request line with its headers; also of trailers. An access token alone may have 64 KiB."""
HEAD_WITHIN_S = 30.0
"""From the connection, or from the first byte after the request before, to the end of the headers."""


class HeadTooLarge(TooLarge):
    """The request line and its headers are too much."""

    http, title = 431, "The headers are too large"


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's protocol, with an end to what it takes in before the application is asked."""

    _before_body = True
    _unseen_bytes = 0
    _deadline: asyncio.TimerHandle | None = None
    _refusal: MillraceError | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Somebody connected."""
        super().connection_made(transport)
        self._deadline = self.loop.call_later(HEAD_WITHIN_S, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Something arrived."""
        self._unseen_bytes += len(data)
        if self._before_body and self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_WITHIN_S, self._too_slow)
        super().data_received(data)
        if self._unseen_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(_too_large())

    def on_headers_complete(self) -> None:
        """The head is there; the application is asked."""
        self._before_body = False
        self._arrived()
        if self._unseen_bytes > MAX_HEAD_BYTES:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > MAX_HEAD_BYTES:
                self._refusal = _too_large()
                raise httptools.HttpParserError  # ends the parsing; `send_400_response` answers
        self._unseen_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        self._unseen_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is there as a whole."""
        self._before_body, self._unseen_bytes = True, 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's sentence; ours is a problem
        """What the parser could not read, or was told not to."""
        self._refuse(self._refusal or Malformed("HTTP_MALFORMED", "This is no HTTP request that can be read."))

    def _too_slow(self) -> None:
        self._refuse(TooSlow("HEAD_TOO_SLOW", f"The headers did not arrive within {HEAD_WITHIN_S:g} s."))

    def _arrived(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, error: MillraceError) -> None:
        """Answers, unless an answer is under way, and closes the connection."""
        self._arrived()
        asked = self.cycle if self.cycle is not None and not self.cycle.response_complete else None
        if asked is None or not asked.response_started:
            if asked is not None:  # the application learns that its client left; what it still says is not written
                asked.disconnected = True
                asked.message_event.set()
            body = msgspec.json.encode(to_problem(error))
            head = (
                f"HTTP/1.1 {error.http} {error.title}\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
                "cache-control: no-store\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()


def _too_large() -> HeadTooLarge:
    return HeadTooLarge(
        "HEAD_TOO_LARGE", f"The request line and its headers are larger than {MAX_HEAD_BYTES} bytes together."
    )
