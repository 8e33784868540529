"""A real Redis for tests: one server a session, started when the first test asks."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.redis.server import RedisServer

RedisBacking = RedisServer


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisBacking]:
    """The session's server, running; fails with what to install where it is missing."""
    folder = Path(tempfile.mkdtemp(prefix="mr-redis-"))
    server = RedisServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
