"""The same platform with every service as its own process, over gRPC sockets, on real Kafka, Redis and PostgreSQL."""

import time
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.backings.platform import ClusterPlatform, Platform, made_platform, wait_gone
from tests.cli.test_commands import GREET, call

pytestmark = pytest.mark.slow
PROCESSES = ("auth", "flows", "webhooks", "files", "executor", "gateway")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Platform]:
    with made_platform(ClusterPlatform) as made:
        made.start()
        made.millrace("sign-up", f"{uuid4().hex}@example.org", stdin="a long password")
        yield made


@pytest.fixture(scope="module")
def greet(cluster: Platform) -> str:
    """A published flow."""
    flow_id: str = cluster.millrace_json("flow", "import", "-", "--publish", stdin=GREET)["flow"]["id"]
    return flow_id


def test_every_service_is_a_process_of_its_own(cluster: Platform) -> None:
    assert len({cluster.pid(name) for name in PROCESSES}) == len(PROCESSES)


def test_a_webhook_runs_a_flow_and_is_answered(cluster: Platform, greet: str) -> None:
    answer = call(cluster, greet, "Ada")
    assert (answer.status_code, answer.json()) == (200, "hello ADA")
    assert 'output: "ADA"' in cluster.millrace("run", "show", answer.headers["x-millrace-run-id"])


def test_after_publishing_the_next_webhook_meets_the_new_version(cluster: Platform, greet: str) -> None:
    for word in ("good day", "good night"):
        document = GREET.replace("hello", word)
        cluster.millrace("flow", "import", "-", "--flow", greet, "--publish", stdin=document)
        assert call(cluster, greet, "Ada").json() == f"{word} ADA"


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_that_is_killed_comes_back_and_all_goes_on(cluster: Platform, greet: str, name: str) -> None:
    before = cluster.pid(name)
    cluster.kill(name)
    wait_gone([before])
    cluster.wait_ready()
    assert cluster.pid(name) != before
    answer = call(cluster, greet, "Ada")
    while answer.status_code == 503:  # as a sender does: again after the time it was told
        time.sleep(int(answer.headers["retry-after"]))
        answer = call(cluster, greet, "Ada")
    assert answer.status_code == 200, answer.text
