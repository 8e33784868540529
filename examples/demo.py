"""The story of the README, told against a running platform (`make up`): every step answers as it should.

A person signs up, keeps two secrets, takes two flows from YAML files live, and GitHub's push, signed as GitHub signs
it, runs through them: code, router, loop with a call per item, answer. Then the run and its steps are shown.
Ends with 1 at the first step that did not answer so.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

HERE = Path(__file__).parent
BASE = os.environ.get("MILLRACE_URL", f"http://127.0.0.1:{os.environ.get('MILLRACE_PORT', '8080')}")
WAIT_S = 15.0

console = Console(highlight=False)


class UnexpectedError(Exception):
    """A step did not answer as it should."""


class Story:
    """One newcomer's way through the product."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def tell(self) -> None:
        """The whole story, in order."""
        github_secret, board_secret = secrets.token_hex(20), secrets.token_hex(20)
        self.sign_up()
        self.connect("github", github_secret)
        self.connect("board", board_secret)
        board = self.publish("task-board.yaml")
        flow = self.publish("github-push.yaml")
        run_id = self.push(flow, board, github_secret)
        self.refuse_forgery(flow)
        self.show(run_id, hidden=(github_secret, board_secret))
        self.list_runs(flow)

    def sign_up(self) -> None:
        """A new person gets a project of their own."""
        body = {"email": f"{secrets.token_hex(6)}@example.com", "password": secrets.token_hex(10), "name": "Ada"}
        answer = self._call("POST", "/api/v1/auth/sign-up", 201, json=body)
        self._client.headers["authorization"] = f"Bearer {answer['tokens']['access_token']}"
        say("signed up", answer["user"]["email"], "with project", answer["project"]["name"])

    def connect(self, name: str, secret: str) -> None:
        """Keep a secret; it never comes out again."""
        body = {"name": name, "kind": "secret_text", "secret": secret}
        answer = self._call("POST", "/api/v1/connections", 201, json=body)
        expect(secret not in str(answer), "the secret came out again")
        say("connection", name, "kept")

    def publish(self, file_name: str) -> str:
        """Import a flow from a file and take it live; its id."""
        document = (HERE / file_name).read_bytes()
        imported = self._call(
            "POST", "/api/v1/flows/import", 201, content=document, headers={"content-type": "application/yaml"}
        )
        expect(imported["faults"] == [], f"{file_name} has faults: {imported['faults']}")
        flow_id: str = imported["flow"]["id"]
        published = self._call("POST", f"/api/v1/flows/{flow_id}/publish", 200)
        expect(published["flow"]["state"] == "enabled", f"{file_name} is {published['flow']}")
        say("flow", imported["flow"]["name"], "is live as version", published["version"]["number"])
        return flow_id

    def push(self, flow_id: str, board: str, secret: str) -> str:
        """Send GitHub's push, signed as GitHub signs it, and wait for the flow's answer; the run's id."""
        payload = (HERE / "payloads" / "github-push.json").read_bytes()
        response = self._client.post(
            f"/api/v1/webhooks/{flow_id}/sync",
            params={"board": f"{BASE}/api/v1/webhooks/{board}/sync"},
            content=payload,
            headers=github_headers(payload, secret),
        )
        expect(response.status_code == 200, f"the push was answered {response.status_code}: {response.text}")
        answer = response.json()
        expect(answer["repository"] == "Codertocat/Hello-World", f"unexpected answer: {answer}")
        expect(answer["tasks"] == [1, 2, 3], f"the board should have numbered three tasks: {answer}")
        expect(answer["warning"] == "Careful: simple-tag is gone", f"the router took another way: {answer}")
        say("pushed; the flow answered", answer)
        return response.headers["x-millrace-run-id"]

    def refuse_forgery(self, flow_id: str) -> None:
        """The same push with another secret's signature is refused, and starts no run."""
        payload = (HERE / "payloads" / "github-push.json").read_bytes()
        response = self._client.post(
            f"/api/v1/webhooks/{flow_id}", content=payload, headers=github_headers(payload, "guessed")
        )
        expect(response.status_code == 401, f"a forged push was answered {response.status_code}")
        say("a forged push was refused:", response.json()["reason"])

    def show(self, run_id: str, hidden: tuple[str, ...]) -> None:
        """The run with each step's input, output and log; no secret in it."""
        run = self._ended(run_id)
        expect(run["run"]["status"] == "succeeded", f"the run is {run['run']}")
        expect(not any(secret in str(run) for secret in hidden), "a secret stands in the run")
        for step in run["steps"]:
            place = f"{step['step_id']}{step['indices'] or ''}"
            say(f"  step {place}: {step['status']}, attempt {step['attempt']}")
            for what in ("input", "output", "console"):
                if step.get(what):
                    say(f"    {what}: {str(step[what])[:160]}")
        told = [line for step in run["steps"] for line in step["console"]]
        expect("Codertocat/Hello-World: simple-tag was deleted, 3 tasks" in told, f"the log says {told}")
        calls = [step for step in run["steps"] if step["step_id"] == "add"]
        expect(len(calls) == 3 and len({step["idempotency_key"] for step in calls}) == 3, "three calls, three keys")

    def list_runs(self, flow_id: str) -> None:
        """The list shows the one run of the flow."""
        runs = self._call("GET", "/api/v1/runs", 200, params={"flow_id": flow_id})["runs"]
        expect([run["status"] for run in runs] == ["succeeded"], f"the list shows {runs}")
        say("the list of runs shows it, finished after", runs[0]["steps_finished"], "steps")

    def _ended(self, run_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + WAIT_S
        while True:
            run = self._call("GET", f"/api/v1/runs/{run_id}", 200)
            if run["run"]["status"] not in ("queued", "running") or time.monotonic() > deadline:
                return run
            time.sleep(0.1)

    def _call(self, method: str, path: str, status: int, **arguments: Any) -> dict[str, Any]:
        response = self._client.request(method, path, **arguments)
        expect(response.status_code == status, f"{method} {path} was answered {response.status_code}: {response.text}")
        answer: dict[str, Any] = response.json()
        return answer


def github_headers(payload: bytes, secret: str) -> dict[str, str]:
    """What GitHub sends with a push."""
    return {
        "content-type": "application/json",
        "user-agent": "GitHub-Hookshot/044aadd",
        "x-github-event": "push",
        "x-github-delivery": secrets.token_hex(16),
        "x-hub-signature-256": "sha256=" + hmac.new(secret.encode(), payload, hashlib.sha256).hexdigest(),
    }


def expect(fact: bool, otherwise: str) -> None:
    """Raise Unexpected when something is not as it should be."""
    if not fact:
        raise UnexpectedError(otherwise)


def say(*words: object) -> None:
    """One line of the story."""
    console.print(*words, soft_wrap=True, markup=False)


def main() -> int:
    """Tell the story; 0 only if every step answered as it should."""
    try:
        with httpx.Client(base_url=BASE, timeout=30) as client:
            Story(client).tell()
    except httpx.TransportError as error:
        say(f"Nothing answers at {BASE} ({error}). Start the platform first: make up")
        return 1
    except UnexpectedError as error:
        say("Not as it should be:", error)
        return 1
    say("Every step answered as it should.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
