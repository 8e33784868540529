"""The command line as a person and as a script use it, against the platform itself."""

import json
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.backings.platform import Platform

GREET = """
schema: 1
name: Greet
triggers: [{id: hook, piece: webhook, event: catch}]
steps:
  - id: shout
    kind: code
    language: typescript
    input: {name: '{{trigger.body.name}}'}
    source: |
      export const code = async ({ name }: { name: string }) => {
        console.log('greeting', name)
        return name.toUpperCase()
      }
  - {id: answer, kind: respond, status: 200, body: 'hello {{shout}}'}
"""
FAULTY = """
schema: 1
name: Faulty
triggers: [{id: hook, piece: webhook, event: catch}]
steps: [{id: call, kind: action, piece: http, action: no_such_action}]
"""


@pytest.fixture(scope="module")
def signed_in(platform: Platform) -> Platform:
    platform.millrace("sign-up", f"{uuid4().hex}@example.org", "--name", "Ada", stdin="a long password\n")
    return platform


@pytest.fixture(scope="module")
def greet(signed_in: Platform) -> str:
    """A published flow."""
    flow_id: str = signed_in.millrace_json("flow", "import", "-", "--publish", stdin=GREET)["flow"]["id"]
    return flow_id


def call(platform: Platform, flow_id: str, name: str) -> httpx.Response:
    return httpx.post(f"{platform.url}/api/v1/webhooks/{flow_id}/sync", json={"name": name}, timeout=60)


def test_the_sign_in_is_kept_for_this_user_alone(signed_in: Platform) -> None:
    kept = Path(signed_in.environment["MILLRACE_CONFIG"])
    assert stat.S_IMODE((kept / "session.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert signed_in.millrace_json("whoami")["user"]["name"] == "Ada"


def test_an_expired_token_is_refreshed_once_however_many_commands_run(signed_in: Platform) -> None:
    """A refresh token that is used twice ends the session: two commands at a time signed their user out."""
    file = Path(signed_in.environment["MILLRACE_CONFIG"]) / "session.json"
    kept = json.loads(file.read_text())
    file.write_text(json.dumps(kept | {"access_expires_at": "2020-01-01T00:00:00Z"}))
    failures: list[AssertionError] = []

    def ask() -> None:
        try:
            signed_in.millrace("whoami")
        except AssertionError as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert json.loads(file.read_text())["refresh_token"] != kept["refresh_token"]


def test_a_flow_goes_in_is_published_runs_and_comes_out(signed_in: Platform, greet: str) -> None:
    answer = call(signed_in, greet, "Ada")
    assert (answer.status_code, answer.json()) == (200, "hello ADA")
    shown = signed_in.millrace("run", "show", answer.headers["x-millrace-run-id"])
    assert "step shout: succeeded" in shown
    assert 'input: {"name": "Ada"}' in shown
    assert 'output: "ADA"' in shown
    assert "| greeting Ada" in shown
    listed = signed_in.millrace_json("run", "list", "--flow", greet, "--status", "succeeded")
    assert answer.headers["x-millrace-run-id"] in [run["id"] for run in listed]
    assert "name: Greet" in signed_in.millrace("flow", "export", greet, "--yaml")
    assert json.loads(signed_in.millrace("flow", "export", greet))["name"] == "Greet"


def test_what_a_sender_wrote_does_not_steer_the_terminal(signed_in: Platform, greet: str) -> None:
    run_id = call(signed_in, greet, "\x1b]0;title\x07 \x9b2J \u202eeman").headers["x-millrace-run-id"]
    shown = signed_in.millrace("run", "show", run_id)
    assert "  | greeting \\x1b]0;title\\x07 \\x9b2J \\u202eeman" in shown
    assert not any(steering in shown for steering in "\x1b\x07\x9b\u202e")


def test_a_flow_is_switched_off_and_on_and_deleted(signed_in: Platform) -> None:
    flow_id = signed_in.millrace_json("flow", "import", "-", "--publish", stdin=GREET)["flow"]["id"]
    assert ": disabled" in signed_in.millrace("flow", "disable", flow_id)
    assert call(signed_in, flow_id, "Ada").status_code == 409
    assert ": enabled" in signed_in.millrace("flow", "enable", flow_id)
    assert call(signed_in, flow_id, "Ada").status_code == 200
    signed_in.millrace("flow", "delete", flow_id, "--yes")
    assert call(signed_in, flow_id, "Ada").status_code == 410


def test_a_faulty_flow_is_taken_and_its_faults_are_named(signed_in: Platform) -> None:
    taken = signed_in.millrace_json("flow", "import", "-", stdin=FAULTY)
    assert taken["faults"]
    said = signed_in.millrace("flow", "publish", taken["flow"]["id"], exit_code=1)
    assert "call" in said
    assert said.startswith("millrace: ")


def test_a_connection_goes_in_by_stdin_and_never_comes_out(signed_in: Platform) -> None:
    made = signed_in.millrace("connection", "create", "board", stdin="s3cret\n")
    listed = signed_in.millrace("connection", "list")
    assert "board" in listed
    assert "s3cret" not in made + listed
    signed_in.millrace("connection", "delete", "board", "--yes")
    assert signed_in.millrace_json("connection", "list") == []


def test_a_run_is_watched_live(signed_in: Platform, greet: str, tmp_path: Path) -> None:
    output = tmp_path / "output"
    with output.open("w") as out:
        watching = subprocess.Popen(
            [Path(sys.executable).with_name("millrace"), "run", "tail", "--flow", greet, "--json"],
            cwd=signed_in.folder,
            env=signed_in.environment,
            stdout=out,
        )
    deadline = time.monotonic() + 60
    while '"status": "succeeded"' not in output.read_text():
        assert time.monotonic() < deadline, output.read_text()
        call(signed_in, greet, "Bob")  # again and again: who does not watch yet is not told
        time.sleep(0.5)
    watching.send_signal(signal.SIGINT)
    assert watching.wait(20) == 0
    assert json.loads(output.read_text().splitlines()[0])["run"]["flow_id"] == greet


def test_a_tail_of_one_run_ends_with_it(signed_in: Platform, greet: str) -> None:
    run_id = call(signed_in, greet, "Eve").headers["x-millrace-run-id"]
    assert "succeeded" in signed_in.millrace("run", "tail", "--run", run_id)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "sentence"),
    [
        (["flow", "show", str(uuid4())], 1, "millrace: "),
        (["flow", "import", "no-such-file.yaml"], 1, "no-such-file.yaml cannot be read"),
        (["flow", "list", "--url", "http://127.0.0.1:1"], 3, "You are not signed in to http://127.0.0.1:1"),
        (["service", "kitchen"], 2, "there is no service 'kitchen'"),
    ],
)
def test_what_goes_wrong_is_a_sentence_and_an_exit_code(
    signed_in: Platform, arguments: list[str], exit_code: int, sentence: str
) -> None:
    said = signed_in.millrace(*arguments, exit_code=exit_code)
    assert sentence in said
    assert "Traceback" not in said


def test_a_platform_that_is_away_is_a_sentence(signed_in: Platform) -> None:
    said = signed_in.millrace("sign-in", "a@example.org", "--url", "http://127.0.0.1:1", stdin="x" * 10, exit_code=4)
    assert "Millrace does not answer at http://127.0.0.1:1" in said


def test_who_signs_out_is_nobody(signed_in: Platform, tmp_path: Path) -> None:
    other = Platform(tmp_path)
    other.port = signed_in.port
    other.millrace("sign-up", f"{uuid4().hex}@example.org", stdin="a long password")
    other.millrace("sign-out")
    assert "millrace sign-in" in other.millrace("whoami", exit_code=3)
