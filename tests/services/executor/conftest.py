"""One running executor for all tests of a module: they differ by their projects and flows."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from aiohttp import web

from tests.services.executor.running import Executor, Neighbours, running_executor
from tests.services.executor.servers import LocalServer, serving


@pytest.fixture(scope="module")
def neighbours(tmp_path_factory: pytest.TempPathFactory, new_database_url: Callable[[], str]) -> Neighbours:
    """flows, auth and webhooks around an executor with an empty database of its own."""
    return Neighbours(tmp_path_factory.mktemp("ex"), new_database_url())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def executor(neighbours: Neighbours) -> AsyncIterator[Executor]:
    """The executor of the module."""
    async with running_executor(neighbours) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[LocalServer]:
    """`/fail/n/…`: 500 to the first n requests. `/slow`: late. `/echo`: target and body. Otherwise: key and body.

    `/hold` answers when `open` is set.
    """
    found: list[LocalServer] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        parts = request.path.split("/")
        if parts[1] == "fail":
            seen = sum(arrival.target == request.path_qs for arrival in found[0].arrivals)
            return web.json_response({"seen": seen}, status=500 if seen <= int(parts[2]) else 200)
        if parts[1] == "slow":
            await asyncio.sleep(5)
        if parts[1] == "hold":
            await found[0].open.wait()
        if parts[1] == "echo":
            return web.json_response({"target": request.path_qs, "body": await request.text()})
        return web.json_response({"key": request.headers.get("Idempotency-Key"), "body": await request.text()})

    async with serving(handler) as made:
        found.append(made)
        yield made
