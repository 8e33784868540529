"""What a call into a jail costs, alone and pipelined, in wall time and in the executor's CPU.

Run: `python bench/jail.py [calls]`. Prints a table. Payload: a small object in and out, unless the row says otherwise.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from services.executor.sandbox import CodeUnit, Sandbox, SandboxSettings

Call = Callable[[], Awaitable[object]]

SYNC = CodeUnit("v", "sync", "javascript", "export const code = ({ n }) => ({ n: n + 1 })")
ASYNC = CodeUnit("v", "async", "javascript", "export const code = async ({ n }) => ({ n: (await n) + 1 })")
ECHO = CodeUnit("v", "echo", "javascript", "export const code = (x) => x")
SMALL = b'{"n": 1}'
PUSH = json.dumps(
    {"commits": [{"id": f"{i:040x}", "message": "a change", "files": ["a/b.py"] * 5} for i in range(40)]}
).encode()


async def _measure(name: str, call: Call, calls: int, in_flight: int) -> None:
    remaining = calls

    async def worker() -> None:
        nonlocal remaining
        while remaining > 0:
            remaining -= 1
            await call()

    await call()
    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{name:<34} {in_flight:>9} {wall / calls * 1e6:>12.1f} {cpu / calls * 1e6:>14.1f}")


async def main(calls: int) -> None:
    """Starts a sandbox and prints one row a kind of call."""
    async with Sandbox(SandboxSettings(max_jails=2)) as sandbox:
        scope = {"trigger": SMALL, "step": SMALL}
        rows: list[tuple[str, Call]] = [
            ("code step", lambda: sandbox.run_code("p", SYNC, SMALL, 5_000)),
            ("code step, async function", lambda: sandbox.run_code("p", ASYNC, SMALL, 5_000)),
            (f"code step, {len(PUSH) // 1024} KiB in and out", lambda: sandbox.run_code("p", ECHO, PUSH, 5_000)),
            ("two expressions", lambda: sandbox.evaluate("p", "v", ("trigger.n + 1", "step.n * 2"), scope, 5_000)),
        ]
        begun = time.perf_counter()
        await rows[0][1]()
        print(
            f"first call after start: {(time.perf_counter() - begun) * 1e3:.0f} ms; walls: {', '.join(sandbox.walls)}"
        )
        print(f"{'':<34} {'in flight':>9} {'µs a call':>12} {'executor CPU':>14}")
        for name, call in rows:
            for in_flight in (1, 32, 256):
                await _measure(name, call, calls // 4 if in_flight == 1 else calls, in_flight)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000))
