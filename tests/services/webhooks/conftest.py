"""One running installation for all tests of a module: they differ by their flows."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.services.webhooks.neighbours import Installation, installation


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def webhooks(
    tmp_path_factory: pytest.TempPathFactory, new_database_url: Callable[[], str]
) -> AsyncIterator[Installation]:
    home: Path = tmp_path_factory.mktemp("wh")
    async with installation(home, new_database_url(), webhook_sync_timeout_s=1.5, webhook_poll_after_s=0.3) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["in process", "socket"])
async def either_way(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, new_database_url: Callable[[], str]
) -> AsyncIterator[Installation]:
    """The same, met in process and over its socket."""
    quick: dict[str, Any] = {"webhook_sync_timeout_s": 1.5, "webhook_poll_after_s": 0.3}
    home: Path = tmp_path_factory.mktemp("wh")
    async with installation(home, new_database_url(), sockets=request.param == "socket", **quick) as running:
        yield running
