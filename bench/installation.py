"""A real installation for the benchmarks.

`millrace up` in a folder of its own, a person signed up, flows taken live.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec

from chassis.postgres import EmbeddedPostgres

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Installation:
    """One running platform. Use as a context."""

    def __init__(self, egress_port: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mr-bench-")
        self.home = Path(self._folder.name) / "home"
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self._environment = {
            **os.environ,
            "MILLRACE_HOME": str(self.home),
            "MILLRACE_PORT": str(self.port),
            "MILLRACE_EGRESS_ALLOW": f'["127.0.0.1:{egress_port}"]',
            "MILLRACE_LOG_LEVEL": "warning",
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client(base_url=self.base, timeout=60)

    def __enter__(self) -> Installation:
        self.start()
        self._sign_up()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._folder.cleanup()

    @property
    def database_url(self) -> str:
        """The embedded PostgreSQL, for counting from outside."""
        return EmbeddedPostgres(self.home / "postgres").url

    def start(self) -> float:
        """Start; how long until it was ready, in seconds."""
        began = time.monotonic()
        command = [str(Path(sys.executable).parent / "millrace"), "up"]
        log = (Path(self._folder.name) / "log").open("ab")
        self._process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)
        while True:
            if self._process.poll() is not None:
                raise RuntimeError((Path(self._folder.name) / "log").read_text()[-3000:])
            try:
                if httpx.get(f"{self.base}/readyz", timeout=1).status_code == 200:
                    return time.monotonic() - began
            except httpx.TransportError:
                pass
            if time.monotonic() - began > 60:
                raise TimeoutError("The platform did not become ready within a minute.")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop as a person would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)
            self._process = None

    def pids(self) -> list[int]:
        """Every process of the installation: the supervisor, all below it, and its PostgreSQL."""
        assert self._process is not None
        children: dict[int, list[int]] = {}
        roots = [self._process.pid]
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                stat = (entry / "stat").read_text()
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            pid = int(entry.name)
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(pid)
            if str(self.home).encode() in command:
                roots.append(pid)
        found: set[int] = set()
        while roots:
            pid = roots.pop()
            if pid not in found:
                found.add(pid)
                roots += children.get(pid, [])
        return sorted(found)

    def pid_of(self, word: str) -> int:
        """The process whose command line holds a word."""
        for pid in self.pids():
            if word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        raise LookupError(word)

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds used so far, by part: edge, executor, jails, postgres, supervisor."""
        used: dict[str, float] = {}
        for pid in self.pids():
            try:
                stat = Path(f"/proc/{pid}/stat").read_text()
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            fields = stat.rpartition(")")[2].split()
            seconds = sum(int(field) for field in fields[11:15]) / CLOCK_TICKS
            part = part_of(command)
            used[part] = used.get(part, 0.0) + seconds
        return used

    def pss_mib(self) -> float:
        """Memory of all processes together, shared pages counted once."""
        total = 0
        for pid in self.pids():
            try:
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        return total / 1024

    def _sign_up(self) -> None:
        body = {"email": f"{secrets.token_hex(6)}@example.com", "password": secrets.token_hex(10), "name": "Bench"}
        answer = self.client.post("/api/v1/auth/sign-up", json=body).raise_for_status().json()
        self.token: str = answer["tokens"]["access_token"]
        self.client.headers["authorization"] = f"Bearer {self.token}"

    def flow(self, name: str, steps: list[dict[str, Any]]) -> str:
        """Create a webhook flow of these steps and take it live; its id."""
        document = {"name": name, "triggers": [{"id": "hook", "piece": "webhook", "event": "catch"}], "steps": steps}
        headers = {"content-type": "application/json"}
        content = msgspec.json.encode(document)
        created = self.client.post("/api/v1/flows/import", content=content, headers=headers).raise_for_status().json()
        if created["faults"]:
            raise ValueError(created["faults"])
        flow_id: str = created["flow"]["id"]
        published = self.client.post(f"/api/v1/flows/{flow_id}/publish").raise_for_status().json()
        if published["flow"]["state"] != "enabled":
            raise ValueError(published)
        return flow_id


def part_of(command: str) -> str:
    """Which part of the platform a command line belongs to."""
    for word, part in (("jail", "jails"), ("edge", "edge"), ("postgres", "postgres"), ("executor", "executor")):
        if word in command:
            return part
    return "supervisor"
