"""One running flows a module of tests: its tests differ by their projects."""

from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from tests.services.flows.running import Flows, running_flows


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def flows(new_database_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Flows]:
    """Flows without consumers: a test reports in their place (`flows.consumer`)."""
    async with running_flows(tmp_path_factory.mktemp("fl"), new_database_url()) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def impatient(
    new_database_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Flows]:
    """As `flows`, but a call waits for consumers for a moment only."""
    async with running_flows(tmp_path_factory.mktemp("fl"), new_database_url(), publish_wait_s=0.05) as running:
        yield running
