"""One running auth a module of tests."""

from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from tests.services.auth.running import Auth, running_auth


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def auth(new_database_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Auth]:
    async with running_auth(tmp_path_factory.mktemp("home"), new_database_url()) as running:
        yield running
