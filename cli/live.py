"""The live view in a terminal: `millrace run tail`.

Decides: the token is the socket's first message (an address ends up in logs), a fresh one is sent before it expires; a
connection that breaks is made again; what was missed meanwhile is said, not hidden.
Leaves: what progress is to the platform, how a step is printed to runs.py.
"""

from __future__ import annotations

import json
import sys
import time
from urllib.parse import urlencode

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection, connect

from cli.api import AWAY, REFUSED, Api, CommandFailed, Record
from cli.printing import tell, when
from cli.runs import failure, step_line, took

DID_NOT_SUCCEED = 5
"""Exit code of a tail of one run that ended otherwise than well."""

_ENDED = frozenset(
    {"succeeded", "failed", "canceled", "timed_out", "memory_exceeded", "log_too_large", "internal_error"}
)
_RENEW_EVERY_S = 240.0
_AGAIN_S = (0.2, 1.0, 2.0, 5.0)
_FOR_GOOD = range(4400, 4500)
"""Close codes that connecting again would meet again."""


def watch(url: str, project: str, flow: str, run: str, *, as_lines: bool) -> int:
    """Print what happens until interrupted, or until the one run has ended. Returns the exit code."""
    failures = 0
    with Api(url, project) as api:
        if not project:
            project = api.get("/api/v1/me")["projects"][0]["id"]
        while True:
            try:
                if run and (ended := _ended_already(api, run, as_lines=as_lines)) is not None:
                    return ended
                with connect(_address(api.url, project, flow, run), max_size=None) as socket:
                    failures = 0
                    if (ended := _follow(socket, api, run, as_lines=as_lines)) is not None:
                        return ended
            except KeyboardInterrupt:
                return 0
            except ConnectionClosed as closed:
                if closed.rcvd is not None and closed.rcvd.code in _FOR_GOOD:
                    raise CommandFailed(closed.rcvd.reason or "The platform ended the live view.", REFUSED) from None
            except (OSError, InvalidHandshake) as error:
                if failures >= len(_AGAIN_S):
                    raise CommandFailed(f"The live view of {api.url} cannot be reached: {error}.", AWAY) from None
            print("The connection broke; what happened meanwhile is missing here.", file=sys.stderr)
            time.sleep(_AGAIN_S[min(failures, len(_AGAIN_S) - 1)])
            failures += 1


def _follow(socket: ClientConnection, api: Api, run: str, *, as_lines: bool) -> int | None:
    """Print what one connection tells. Returns the exit code once the run that is watched has ended."""
    _authenticate(socket, api)
    renew_at = time.monotonic() + _RENEW_EVERY_S
    while True:
        try:
            message = json.loads(socket.recv(timeout=max(0.0, renew_at - time.monotonic())))
        except TimeoutError:
            _authenticate(socket, api)
            renew_at = time.monotonic() + _RENEW_EVERY_S
            continue
        if message["type"] in ("dropped", "interrupted"):
            print("Some of what happened is missing here.", file=sys.stderr)
        if message["type"] == "ready" and run and (ended := _ended_already(api, run, as_lines=as_lines)) is not None:
            return ended  # between the first look and the socket
        for progress in message.get("progress", ()):
            _tell(progress, as_lines=as_lines)
            if run and progress["run"]["id"] == run and progress["run"]["status"] in _ENDED:
                return _exit_code(progress["run"])


def _authenticate(socket: ClientConnection, api: Api) -> None:
    socket.send(json.dumps({"type": "authenticate", "token": api.fresh_token()}))


def _ended_already(api: Api, run: str, *, as_lines: bool) -> int | None:
    found = api.get(f"/api/v1/runs/{run}")
    if found["run"]["status"] not in _ENDED:
        return None
    _tell(found, as_lines=as_lines)
    return _exit_code(found["run"])


def _exit_code(run: Record) -> int:
    return 0 if run["status"] == "succeeded" else DID_NOT_SUCCEED


def _tell(progress: Record, *, as_lines: bool) -> None:
    if as_lines:
        print(json.dumps({"run": progress["run"], "steps": progress["steps"]}, ensure_ascii=False), flush=True)
        return
    run = progress["run"]
    for step in progress["steps"]:
        tell(f"{run['id']}   {step_line(step)}")
        for line in step["console"]:
            tell(f"{run['id']}   | {line}")
    lasted = f", took {took(run)}" if run["finished_at"] else ""
    tell(f"{run['id']} {run['status']} {when(run['started_at'])}{lasted}")
    if run["error"]:
        tell(f"{run['id']}   {failure(run['error'])}")
    sys.stdout.flush()


def _address(url: str, project: str, flow: str, run: str) -> str:
    query = {"project_id": project, "flow_id": flow, "run_id": run}
    given = urlencode({name: text for name, text in query.items() if text})
    return f"{url.replace('http', 'ws', 1)}/api/v1/live?{given}"
