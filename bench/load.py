"""Load over real sockets: wrk for as much as there is room for, and our own paced sender for a fixed rate.

The paced sender is an open loop: a request leaves when its time has come, whether or not those before it were answered,
and its latency counts from that time, so a stall is not hidden (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import tempfile
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import msgspec


@dataclass
class Measured:
    """What came of a load: rate in requests a second, latencies in milliseconds."""

    per_s: float
    p50_ms: float
    p99_ms: float
    errors: int


async def wrk(
    url: str, *, connections: int, seconds: int, body: bytes = b"", headers: dict[str, str] | None = None
) -> Measured:
    """As much as `connections` can get through. Raises when a request failed."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing. Debian, Ubuntu: apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "load.lua"
        (Path(folder) / "body").write_bytes(body)
        lines = [f'wrk.method = "{"POST" if body else "GET"}"']
        if body:
            lines.append(f'local file = io.open("{folder}/body", "rb"); wrk.body = file:read("*a"); file:close()')
            lines.append('wrk.headers["Content-Type"] = "application/json"')
        lines += [f'wrk.headers["{name}"] = "{value}"' for name, value in (headers or {}).items()]
        script.write_text("\n".join(lines))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), url]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        told = (await process.communicate())[0].decode()
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", told)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", told)
    errors = (int(failed[1]) if failed else 0) + (sum(map(int, broken.groups())) if broken else 0)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", told)
    assert rate is not None, told
    return Measured(float(rate[1]), _percentile_of(told, "50%"), _percentile_of(told, "99%"), errors)


def _percentile_of(told: str, which: str) -> float:
    found = re.search(rf"\s{which}\s+([\d.]+)(us|ms|s)", told)
    assert found is not None, told
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]


@dataclass
class _Paced(asyncio.Protocol):
    """One keep-alive connection; answers are matched in order."""

    latencies: list[float]
    errors: list[bytes]
    waiting: deque[float] = field(default_factory=deque)
    transport: asyncio.Transport | None = None
    _buffer: bytes = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            if len(self._buffer) < end + 4 + length:
                return
            if not head.startswith(b"http/1.1 2"):
                self.errors.append(self._buffer[: end + 4 + length])
            self._buffer = self._buffer[end + 4 + length :]
            self.latencies.append((asyncio.get_running_loop().time() - self.waiting.popleft()) * 1000)


async def paced(
    url: str, *, per_s: float, seconds: float, body: bytes = b"", headers: dict[str, str] | None = None
) -> Measured:
    """A fixed rate over 64 connections."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"{'POST' if body else 'GET'} {path} HTTP/1.1", f"host: {parts.netloc}"]
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    request = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    errors: list[bytes] = []
    made = [
        await loop.create_connection(lambda: _Paced(latencies, errors), parts.hostname, parts.port) for _ in range(64)
    ]
    connections = deque(protocol for _, protocol in made)
    began = loop.time()
    count = int(per_s * seconds)
    for number in range(count):
        due = began + number / per_s
        if due > loop.time():
            await asyncio.sleep(due - loop.time())
        for _ in range(len(connections)):  # an idle connection if there is one
            connections.rotate(1)
            if not connections[0].waiting:
                break
        connection = connections[0]
        connection.waiting.append(due)
        assert connection.transport is not None
        connection.transport.write(request)
    async with asyncio.timeout(30):
        while len(latencies) < count:
            await asyncio.sleep(0.01)
    took = loop.time() - began
    for connection in connections:
        assert connection.transport is not None
        connection.transport.close()
    latencies.sort()
    return Measured(count / took, latencies[count // 2], latencies[int(count * 0.99)], len(errors))


PUSH = (Path(__file__).parent.parent / "examples" / "payloads" / "github-push.json").read_bytes()
"""7 KB: GitHub's push."""
SMALL = msgspec.json.encode(
    {"id": 4711, "customer": "Ada", "lines": [{"sku": "a-1", "price": 12.5}] * 5, "note": "x" * 40}
)
"""About 256 bytes."""
