"""A real Apache Kafka for tests: one broker a session, started when the first test asks."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.kafka.server import KafkaServer

KafkaBacking = KafkaServer


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaBacking]:
    """The session's broker, running; fails with what to install where Java or Maven are missing."""
    folder = Path(tempfile.mkdtemp(prefix="mr-kafka-"))
    server = KafkaServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()  # nothing of it is kept: no reason to wait for a clean end
        shutil.rmtree(folder, ignore_errors=True)
