"""`millrace up` from outside: ready with one command, mended after any kill, stopped in order, plain about faults."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from chassis.errors import StartRefused
from cli import supervise
from tests.backings.platform import Platform, made_platform, wait_gone

SLOW_FLOW = """
schema: 1
name: Takes a moment
triggers: [{id: hook, piece: webhook, event: catch}]
steps:
  - id: moment
    kind: code
    language: javascript
    source: |
      export const code = () => {
        const end = Date.now() + 1500
        while (Date.now() < end);
        return 'done'
      }
  - {id: answer, kind: respond, status: 200, body: '{{moment}}'}
"""


@pytest.fixture
def own() -> Iterator[Platform]:
    """A platform for one test alone, not started."""
    with made_platform() as made:
        yield made


def sign_up(platform: Platform) -> None:
    platform.millrace("sign-up", "ada@example.org", stdin="a long password")


def publish(platform: Platform, document: str) -> str:
    flow_id: str = platform.millrace_json("flow", "import", "-", "--publish", stdin=document)["flow"]["id"]
    return flow_id


def test_every_process_may_be_killed_and_what_was_stored_stays(own: Platform) -> None:
    own.start()
    sign_up(own)
    for name in ("edge", "executor", "postgres"):
        before = own.pid(name)
        own.kill(name)
        wait_gone([before])
        own.wait_ready()
        assert own.millrace_json("whoami")["user"]["email"] == "ada@example.org"
        assert own.pid(name) != before
    rest = [own.pid(name) for name in ("edge", "executor")]
    own.kill("supervisor")
    wait_gone(rest)  # no process of ours outlives it, and PostgreSQL is stopped by the next start
    own.start()
    assert own.millrace_json("whoami")["user"]["email"] == "ada@example.org"
    own.kill_everything()
    own.start()
    assert own.millrace_json("whoami")["user"]["email"] == "ada@example.org"


def test_a_stop_lets_requests_end_and_leaves_no_process(own: Platform) -> None:
    own.start()
    sign_up(own)
    flow_id = publish(own, SLOW_FLOW)
    answers: list[httpx.Response] = []
    asking = threading.Thread(
        target=lambda: answers.append(httpx.post(f"{own.url}/api/v1/webhooks/{flow_id}/sync", json={}, timeout=60))
    )
    asking.start()
    time.sleep(0.5)
    pids = own.pids()
    assert own.stop() == 0
    asking.join()
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, "done")]
    wait_gone(pids)


def test_a_taken_port_is_a_sentence(own: Platform) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", own.port))
        taken.listen()
        assert f"Port {own.port} is taken by another program." in own.refused()


def test_a_second_platform_on_one_home_is_a_sentence(own: Platform, tmp_path: Path) -> None:
    own.start()
    (tmp_path / "second").mkdir()
    second = Platform(tmp_path / "second")
    second.home = own.home
    assert "is in use by another Millrace" in second.refused()
    own.wait_ready()


def test_data_of_a_newer_version_is_a_sentence(own: Platform) -> None:
    own.start()
    own.stop()
    version = own.home / "postgres" / "data" / "PG_VERSION"
    version.write_text("99\n")
    assert "was made by PostgreSQL 99" in own.refused()


def test_tables_of_a_newer_version_are_a_sentence(own: Platform) -> None:
    own.start()
    socket_folder = own.home / "postgres" / "run"
    statement = "UPDATE flows.schema_version SET version_num = '9999'"
    asks = (
        "import asyncio, asyncpg\n"
        "async def main():\n"
        f"    connection = await asyncpg.connect('postgresql://millrace@/postgres?host={socket_folder}')\n"
        f"    await connection.execute({statement!r})\n"
        "asyncio.run(main())"
    )
    subprocess.run([sys.executable, "-c", asks], check=True)
    own.stop()
    assert "The data of flows was written by a newer version of Millrace" in own.refused()


def test_a_home_that_cannot_be_used_is_a_sentence(own: Platform) -> None:
    own.home.write_text("a file")
    assert f"The home folder {own.home} cannot be used" in own.refused()


def test_a_wrong_port_is_a_sentence(own: Platform) -> None:
    own.settings["MILLRACE_PORT"] = "web"
    assert "MILLRACE_PORT is 'web'" in own.refused()


def test_a_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1024))
    with pytest.raises(StartRefused, match=r"The disk of .* is full"):
        supervise._prepare_home(tmp_path)


def test_the_supervisor_stays_small(platform: Platform) -> None:
    """What it imports stays in memory for as long as the platform runs."""
    heavy = "{'grpc', 'pydantic', 'structlog', 'typer', 'rich'}"
    asks = f"import cli.supervise, sys; print(sorted({heavy} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", asks], check=True, capture_output=True, text=True)
    assert said.stdout.strip() == "[]"
