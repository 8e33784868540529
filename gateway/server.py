"""HTTP on a port, as one more loop of the process's life.

Decides: uvicorn with httptools on the running loop; the port is taken at the start, so that a taken one is a sentence
and not a crash; at the end requests under way may finish, within the drain time.
Leaves: signals to chassis.lifecycle, what is served to app.py, the bounds of what comes before a body to heads.py.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import structlog
import uvicorn
from starlette.types import ASGIApp

from chassis.errors import StartRefused
from gateway.heads import BoundedHeads

_log = structlog.get_logger(__name__)

_MAX_WEBSOCKET_MESSAGE_BYTES = 128 * 1024
_KEEP_ALIVE_S = 75
_BACKLOG = 2048


class _Server(uvicorn.Server):
    """uvicorn's server without its hand on the signals: the chassis owns them."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """Holds the port while entered, and answers on it while `serve` runs."""

    def __init__(self, host: str, port: int, drain_s: float) -> None:
        self._host, self._port, self._drain_s = host, port, drain_s
        self._socket: socket.socket | None = None

    async def __aenter__(self) -> Self:
        self._socket = _bound(self._host, self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()

    @property
    def port(self) -> int:
        """The port that was taken."""
        if self._socket is None:
            raise RuntimeError("The port is asked for before it was taken.")
        port: int = self._socket.getsockname()[1]
        return port

    async def serve(self, app: ASGIApp) -> None:
        """Answers until cancelled; then lets requests under way finish."""
        if self._socket is None:
            raise RuntimeError("The server is used before it was entered.")
        config = uvicorn.Config(
            app,
            http=BoundedHeads,
            ws="websockets-sansio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, int(self._drain_s)),
            ws_max_size=_MAX_WEBSOCKET_MESSAGE_BYTES,
        )
        server = _Server(config)
        work = asyncio.create_task(server.serve(sockets=[self._socket]))
        _log.info("listening", url=f"http://{self._host}:{self.port}")
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            server.should_exit = True
            await work
            raise
        raise RuntimeError("The HTTP server ended by itself.")


def _bound(host: str, port: int) -> socket.socket:
    """A socket that holds the port but does not answer yet. Raises: StartRefused."""
    # The protocol is named because accepted sockets inherit it, and asyncio sets TCP_NODELAY only where it says TCP:
    # without it the second write of an answer waits 40 ms for the client's acknowledgement.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)  # from here on nobody else gets the port; who connects early waits
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise StartRefused(
                f"Port {port} is taken by another program. Stop it, or set MILLRACE_PORT to another one."
            ) from None
        raise StartRefused(
            f"Cannot answer on {host} port {port}: {os.strerror(error.errno or 0)}. "
            "Set MILLRACE_HOST and MILLRACE_PORT."
        ) from None
    listener.setblocking(False)
    return listener
