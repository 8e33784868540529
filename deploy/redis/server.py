"""A real Redis for development (`make cluster`) and tests: the machine's `redis-server`, on a port of its own.

Decides: that nothing is kept on disk (everything in Redis may be lost, I7).
Leaves: what is kept there to `chassis/cache`.
"""

import contextlib
import shutil
import socket
import subprocess
import time
from pathlib import Path

_START_TIMEOUT_S = 20


class RedisMissingError(Exception):
    """Something of the machine's own is missing; the message says what to install."""


class RedisServer:
    """One server; its port stays over `kill` and `start`, its content does not."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self._folder = folder
        self._port = port or _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return the address for clients."""
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def pid(self) -> int | None:
        """Return the server's process id, None when it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start the server and wait until it takes connections. Running: nothing. Raises: RedisMissingError."""
        if self.pid is not None:
            return
        program = shutil.which("redis-server")
        if program is None:
            raise RedisMissingError("Redis needs the program 'redis-server'. Install it: apt-get install redis-server")
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # fixed arguments
                [program, "--bind", "127.0.0.1", "--port", str(self._port), "--save", "", "--appendonly", "no"],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
                return
            time.sleep(0.02)
        raise RedisMissingError(f"redis-server did not start; its log: {self._folder / 'redis.log'}")

    def kill(self) -> None:
        """SIGKILL; all content is lost."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Stop the server."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()


def _free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])
