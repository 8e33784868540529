"""`/metrics`, `/healthz` and `/readyz` over plain HTTP, for whoever watches a process.

Decides: the three answers. Leaves: what is counted to `telemetry`, when a process is ready to `lifecycle`.
A few lines of asyncio: a web framework here would cost each service 15 MB.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from chassis.errors import StartRefused
from chassis.telemetry import Metrics

_LONGEST_REQUEST_BYTES = 8 * 1024


class MetricsHttp:
    """Answers on a port while entered. Port 0 takes a free one, told by `port`."""

    def __init__(self, port: int, metrics: Metrics, ready: Callable[[], bool]) -> None:
        self.port = port
        self._metrics = metrics
        self._ready = ready
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        try:
            self._server = await asyncio.start_server(self._answer, "", self.port, limit=_LONGEST_REQUEST_BYTES)
        except OSError as error:
            raise StartRefused(f"Cannot listen on MILLRACE_METRICS_PORT {self.port}: {error.strerror}.") from None
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(5):
                head = await reader.readuntil(b"\r\n\r\n")
                status, body = self._response(head.split(b" ", 2)[1].partition(b"?")[0])
                writer.write(
                    b"HTTP/1.1 %s\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n"
                    b"content-length: %d\r\nconnection: close\r\n\r\n" % (status, len(body)) + body
                )
                await writer.drain()
        except (OSError, TimeoutError, EOFError, IndexError, asyncio.LimitOverrunError):
            return  # a reader that hung up, dawdled or did not speak HTTP gets no answer
        finally:
            writer.close()

    def _response(self, path: bytes) -> tuple[bytes, bytes]:
        if path == b"/metrics":
            return b"200 OK", self._metrics.render()
        if path == b"/healthz":
            return b"200 OK", b"ok\n"
        if path == b"/readyz":
            return (b"200 OK", b"ready\n") if self._ready() else (b"503 Service Unavailable", b"not ready\n")
        return b"404 Not Found", b"not found\n"
