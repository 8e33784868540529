"""The whole platform in a home of its own, for tests that look at it from outside: embedded, or as a cluster."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

_READY_WITHIN_S = 120
_STOP_WITHIN_S = 60
_GONE_WITHIN_S = 20
_ROOT = Path(__file__).resolve().parent.parent.parent
_MILLRACE = str(Path(sys.executable).with_name("millrace"))


class Platform:
    """One installation. Its home, port and sign-in stay over `kill` and `start`."""

    command: tuple[str, ...] = (_MILLRACE, "up")

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.port = _free_port()
        self.settings = settings
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        inherited = {name: text for name, text in os.environ.items() if not name.startswith("MILLRACE_")}
        own = {
            "MILLRACE_HOME": str(self.home),
            "MILLRACE_PORT": str(self.port),
            "MILLRACE_CLUSTER": str(self.home),
            "MILLRACE_CONFIG": str(self.folder / "config"),
            "PYTHONPATH": str(_ROOT),
            "MILLRACE_AUTH_BCRYPT_COST": "4",
        }
        return inherited | own | self.settings

    @property
    def output(self) -> str:
        """What it printed in all its lives."""
        return (self.folder / "output.log").read_text()

    def launch(self) -> "subprocess.Popen[str]":
        """Start it without waiting."""
        with (self.folder / "output.log").open("a") as log:
            self._process = subprocess.Popen(
                self.command, cwd=self.folder, env=self.environment, stdout=log, stderr=log, text=True
            )
        return self._process

    def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        said = self.output.count("Millrace is ready:") if (self.folder / "output.log").exists() else 0
        process = self.launch()
        deadline = time.monotonic() + _READY_WITHIN_S
        while self.output.count("Millrace is ready:") == said:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"The platform did not get ready:\n{self.output[-4000:]}")
            time.sleep(0.05)

    def refused(self) -> str:
        """Start it, expect that it refuses, and return what it said."""
        process = self.launch()
        assert process.wait(_READY_WITHIN_S) == 78, self.output
        self._process = None
        return self.output

    def wait_ready(self) -> None:
        """Wait until everything answers."""
        deadline = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/readyz", timeout=5).is_success:
                    return
            time.sleep(0.05)
        pytest.fail(f"The platform is not ready:\n{self.output[-4000:]}")

    def pid(self, name: str) -> int:
        """The process id of `supervisor`, `postgres`, `edge` or `executor`; in a cluster of each service."""
        assert self._process is not None
        if name == "supervisor":
            return self._process.pid
        for pid in _children(self._process.pid):
            if _is(name, _command(pid)):
                return pid
        raise LookupError(f"{name} does not run")

    def pids(self) -> list[int]:
        """Every process of it, the supervisor first."""
        assert self._process is not None
        return _descendants(self._process.pid)

    def kill(self, name: str) -> None:
        """SIGKILL one process."""
        os.kill(self.pid(name), signal.SIGKILL)

    def kill_everything(self) -> None:
        """SIGKILL every process of it at once, PostgreSQL with it."""
        pids = self.pids()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait()
        wait_gone(pids)

    def stop(self) -> int:
        """SIGTERM; the exit code, once it has drained."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(_STOP_WITHIN_S)
        finally:
            process.kill()

    def millrace(self, *arguments: str, stdin: str = "", exit_code: int = 0) -> str:
        """Run a command against it and return what it printed."""
        done = subprocess.run(
            [_MILLRACE, *arguments],
            check=False,
            cwd=self.folder,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_READY_WITHIN_S,
        )
        assert done.returncode == exit_code, done.stdout + done.stderr
        return done.stdout if exit_code == 0 else done.stderr

    def millrace_json(self, *arguments: str, stdin: str = "") -> Any:
        """Run a command with --json and return what it answered."""
        return json.loads(self.millrace(*arguments, "--json", stdin=stdin))


def wait_gone(pids: list[int]) -> None:
    """Wait until none of these processes is there any more."""
    deadline = time.monotonic() + _GONE_WITHIN_S
    while left := [pid for pid in pids if _command(pid)]:
        assert time.monotonic() < deadline, [_command(pid) for pid in left]
        time.sleep(0.05)


def _is(name: str, command: list[str]) -> bool:
    if name == "postgres":
        return command[:1] != [] and command[0].endswith("/postgres")
    return command[-2:] in (["cli.up", name], ["-m", f"services.{name}"], ["-m", name])


def _command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _children(pid: int) -> list[int]:
    asked = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], check=False, capture_output=True, text=True)
    return [int(word) for word in asked.stdout.split()]


def _descendants(pid: int) -> list[int]:
    return [pid, *(one for child in _children(pid) for one in _descendants(child))]


def _free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


class ClusterPlatform(Platform):
    """Every service and the gateway as its own process, on real Kafka, Redis and PostgreSQL."""

    command: tuple[str, ...] = (sys.executable, "-m", "deploy.cluster")

    @property
    def output(self) -> str:
        """What it printed in all its lives, and what its processes logged."""
        logs = sorted((self.home / "logs").glob("*.log"))
        return super().output + "".join(f"\n-- {log.name}\n{log.read_text()}" for log in logs)


@contextlib.contextmanager
def made_platform(kind: type[Platform] = Platform) -> Iterator[Platform]:
    """A platform of one's own, not started. Not below pytest's folders, which PostgreSQL's own user may not enter."""
    folder = Path(tempfile.mkdtemp(prefix="mr-up-"))
    made = kind(folder)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """The session's platform, ready, with nobody signed up. Tests that kill it make one of their own."""
    with made_platform() as made:
        made.start()
        yield made
