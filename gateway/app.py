"""The HTTP application: REST under FastAPI, the live view, and webhooks beside it.

Decides: what is served where. Webhooks go first and past everything that REST pays for; then the shell (headers, body
limit, faults), CORS if it is on, and FastAPI's routes.
Leaves: each route to routes/, the webhooks to hooks.py, running it to server.py.
"""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from gateway import openapi, problems
from gateway.answers import encode
from gateway.http_metrics import HttpMetrics
from gateway.live import Live
from gateway.parts import PROJECT_HEADER, Parts
from gateway.routes import auth, connections, drafts, flows, health, pieces, runs
from gateway.shell import Shell
from gateway.shortcuts import Shortcuts

WEBHOOKS = "/api/v1/webhooks/"
ROUTERS = (
    auth.router,
    auth.keys_router,
    flows.router,
    drafts.router,
    runs.router,
    connections.router,
    pieces.router,
    health.router,
)


def rest_app(parts: Parts, more_paths: Mapping[str, dict[str, Any]]) -> FastAPI:
    """The routes of REST and the live view. `more_paths` documents what is served beside them."""
    app = FastAPI(title="Millrace", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.state.parts = parts
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router)
    live = Live(parts)

    async def live_view(socket: WebSocket) -> None:
        await live.serve(socket)

    document: list[bytes] = []

    async def openapi_document(_request: Request) -> Response:
        if not document:  # made at the first request: it costs 50 ms, and most processes are never asked
            document.append(encode(openapi.document_of(app, more_paths)))
        return Response(document[0], media_type="application/json")

    app.add_api_websocket_route("/api/v1/live", live_view)
    app.add_route(openapi.PATH, openapi_document, include_in_schema=False)
    return app


def build_app(
    parts: Parts, hooks: ASGIApp | None = None, hook_paths: Mapping[str, dict[str, Any]] | None = None
) -> ASGIApp:
    """The whole application. `hooks` answers below `WEBHOOKS`; `hook_paths` are its OpenAPI path items."""
    settings = parts.settings
    app = rest_app(parts, hook_paths or {})
    rest: ASGIApp = Shortcuts(app, app, [*flows.READS, *runs.READS])
    if settings.cors_origins:
        rest = CORSMiddleware(
            rest,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["authorization", "content-type", PROJECT_HEADER],
            expose_headers=["retry-after", "location"],
            max_age=600,
        )
    metrics = HttpMetrics(parts.metrics)
    shell = Shell(
        rest,
        body_limit_bytes=settings.rest_body_limit_bytes,
        body_timeout_s=settings.body_timeout_s,
        record=metrics.record,
    )
    if hooks is None:
        return shell

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(WEBHOOKS):
            await hooks(scope, receive, send)
        else:
            await shell(scope, receive, send)

    return dispatch
