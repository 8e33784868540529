"""Calls an action the way a step does: from JSON, with a real way out to servers on this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import cast

import msgspec
from millrace_sdk import Action, Context, Http, Json, Piece

from services.executor.egress import Egress, EgressSettings
from tests.services.executor.servers import Handler, LocalServer, serving


def context(http: Http | None = None, key: str = "key-1") -> Context:
    """What a call knows; without `http` it cannot go out."""
    return Context(http=cast("Http", http), idempotency_key=key, run_id="run", step_id="step", attempt=1)


async def called(piece: Piece, name: str, input: Mapping[str, object], ctx: Context | None = None) -> Json:
    """The output of an action for an input, read as strictly as in a run."""
    action = piece.action(name)
    assert isinstance(action, Action)
    return await action.run(ctx or context(), action.decode(msgspec.json.encode(input)))


@asynccontextmanager
async def outside(handler: Handler) -> AsyncIterator[tuple[LocalServer, Context]]:
    """A server on this machine, and a context that may call it."""
    async with serving(handler) as server, Egress(EgressSettings(allow=[server.address])) as egress:
        yield server, context(egress)
