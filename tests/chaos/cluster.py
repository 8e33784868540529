"""The cluster of `make cluster`, with a second executor beside the first."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from deploy.kafka.server import free_port
from tests.backings.platform import ClusterPlatform, made_platform
from tests.chaos.installation import Installation
from tests.chaos.processes import gone, send, until

SECOND = "second executor"


class Cluster(Installation):
    """`killed` knows one piece more: the second executor, which this object supervises."""

    def __init__(self, platform: ClusterPlatform) -> None:
        super().__init__(platform)
        self._second: subprocess.Popen[bytes] | None = None

    async def start_second(self) -> None:
        """Start the second executor, with the settings of the first."""
        await until("the first executor runs", lambda: self.pid("executor") is not None)
        first = Path(f"/proc/{self.pid('executor')}/environ").read_text().split("\0")
        env = dict(line.split("=", 1) for line in first if "=" in line)
        env |= {"MILLRACE_LISTEN": f"127.0.0.1:{free_port()}", "MILLRACE_EXECUTOR_NAME": "second"}
        env.pop("MILLRACE_READY_FD", None)
        with (self.platform.home / "logs" / "second.log").open("ab") as log:
            self._second = subprocess.Popen(
                [sys.executable, "-m", "services.executor"],
                cwd=self.platform.folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def pid(self, piece: str) -> int | None:
        """As for any installation."""
        if piece == SECOND:
            return self._second.pid if self._second is not None and self._second.poll() is None else None
        return super().pid(piece)

    @asynccontextmanager
    async def killed(self, piece: str) -> AsyncIterator[None]:
        """As for any installation; with everything the second executor dies, too."""
        if piece in (SECOND, "everything", "supervisor"):
            await self._kill_second()
        if piece == SECOND:
            await self._statements_ended()
            yield
        else:
            async with super().killed(piece):
                yield
        if self._second is None:
            await self.start_second()

    async def end(self) -> None:
        """As for any installation."""
        await self._kill_second()
        await super().end()

    async def _kill_second(self) -> None:
        pid = self.pid(SECOND)
        if pid is not None and self._second is not None:
            send([pid], signal.SIGKILL)
            await gone([pid])
            self._second.wait()
        self._second = None


@asynccontextmanager
async def cluster(egress: str) -> AsyncIterator[Cluster]:
    """A fresh one, ready, with two executors; nothing of it is left afterwards."""
    with made_platform(ClusterPlatform) as platform:
        assert isinstance(platform, ClusterPlatform)
        platform.settings |= {"MILLRACE_EGRESS_ALLOW": f'["{egress}"]'}
        running = Cluster(platform)
        running.launch()
        try:
            await running.ready()
            await running.start_second()
            yield running
        finally:
            await running.end()
