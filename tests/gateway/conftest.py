"""One running gateway a session of tests; each test brings its own people."""

from collections.abc import Callable, Iterator

import pytest

from tests.gateway.running_gateway import Person, RunningGateway, running_gateway


@pytest.fixture(scope="session")
def gateway(new_database_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with running_gateway(tmp_path_factory.mktemp("home"), new_database_url()) as running:
        yield running


@pytest.fixture
def person(gateway: RunningGateway) -> Person:
    """Somebody new, signed in."""
    return gateway.person()
