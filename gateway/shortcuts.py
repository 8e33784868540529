"""The reads that a busy installation lives on, past the layers that only other routes need.

Decides: a GET of a route that takes nothing but the request goes straight to its function, which is the same one that
FastAPI documents and would call. Everything else goes on to FastAPI.
Measured: FastAPI's stack costs 0.2 ms a request (exit stacks, body limit, telemetry, nested routers, dependencies), as
much as the database; a list of 20 flows went from 1.1 to 0.8 ms of CPU.
Leaves: the answers to routes/, everything of other requests to app.py.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from chassis.errors import MillraceError
from gateway.problems import problem_answer

Endpoint = Callable[[Request], Awaitable[Response]]


class Read(NamedTuple):
    """A route. `path` ends in `/{name}` when it takes one id."""

    path: str
    endpoint: Endpoint


class Shortcuts:
    """Answers the hot reads; an ASGI layer before FastAPI."""

    def __init__(self, app: FastAPI, rest: ASGIApp, reads: list[Read]) -> None:
        self._app, self._rest = app, rest
        self._lists = {read.path: read for read in reads if not read.path.endswith("}")}
        self._items = {
            read.path.rpartition("/")[0]: (read, read.path.rpartition("{")[2][:-1])
            for read in reads
            if read.path.endswith("}")
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        read = self._found(scope) if scope["type"] == "http" and scope["method"] == "GET" else None
        if read is None:
            await self._rest(scope, receive, send)
            return
        scope["app"], scope["route"] = self._app, read
        try:
            answer = await read.endpoint(Request(scope, receive))
        except MillraceError as error:
            answer = problem_answer(error)
        await answer(scope, receive, send)

    def _found(self, scope: Scope) -> Read | None:
        path: str = scope["path"]
        read = self._lists.get(path)
        if read is not None:
            return read
        parent, _, last = path.rpartition("/")
        item = self._items.get(parent)
        if item is None or not last:
            return None
        scope["path_params"] = {item[1]: last}
        return item[0]
