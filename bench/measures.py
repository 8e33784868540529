"""What is measured, one function a figure, against the budgets of performance.md (embedded mode)."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass

import asyncpg
from rich.console import Console

from bench.installation import Installation
from bench.ledger import Ledger
from bench.load import PUSH, SMALL, paced, wrk

SECONDS = 10
CODE = {
    "id": "double",
    "kind": "code",
    "language": "javascript",
    "input": {"n": "{{trigger.body.id}}"},
    "source": "export const code = ({ n }) => ({ n: n * 2 })",
}
DATA = {
    "id": "told",
    "kind": "action",
    "piece": "data",
    "action": "set",
    "input": {"fields": {"doubled": "{{double.n}}", "customer": "{{trigger.body.customer}}"}},
}

console = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Result:
    """One figure. `comparison` says on which side of `budget` it has to be; `summary`: part of summary.json."""

    name: str
    value: float
    conditions: str
    comparison: str = ""
    budget: float | None = None
    summary: bool = True

    @property
    def met(self) -> bool:
        """Whether the budget is kept."""
        assert self.budget is not None
        return self.value >= self.budget if self.comparison == ">=" else self.value <= self.budget


async def measure() -> list[Result]:
    """All figures, one after the other, on one installation."""
    results: list[Result] = []

    def note(*new: Result) -> None:
        results.extend(new)
        for result in new:
            console.print(f"{result.name}: {result.value:,.3f}  ({result.conditions})")

    async with Ledger() as ledger:
        with Installation(ledger.port) as platform:
            flow = platform.flow("Two steps", [CODE, DATA])
            hook = f"{platform.base}/api/v1/webhooks/{flow}"
            await wrk(hook, connections=8, seconds=3, body=SMALL)  # everything is loaded, compiled and warm
            await _drained(platform)
            note(*await _accepting(platform, hook))
            note(*await _answering(hook))
            note(*await _finishing(platform, hook))
            note(*await _steps(platform, ledger))
            note(*await _listing(platform))
            note(await _recovering(platform, ledger))
            note(*_starting(platform))
    return results


async def _accepting(platform: Installation, hook: str) -> list[Result]:
    rate = await wrk(hook, connections=64, seconds=SECONDS, body=SMALL)
    await _drained(platform)
    large = await wrk(hook, connections=64, seconds=SECONDS // 2, body=PUSH)
    await _drained(platform)
    steady = await paced(hook, per_s=1000, seconds=SECONDS, body=SMALL)
    await _drained(platform)
    return [
        Result(
            "webhook_accepted_per_s",
            rate.per_s,
            f"256 B, 64 in flight, {rate.errors} errors, runs at work beside",
            ">=",
            4000,
        ),
        Result("webhook_accepted_7kb_per_s", large.per_s, "GitHub's push, 64 in flight", summary=False),
        Result("webhook_accept_p99_ms_at_1000", steady.p99_ms, f"256 B, open loop at {steady.per_s:.0f}/s", "<=", 25),
    ]


async def _answering(hook: str) -> list[Result]:
    many = await wrk(f"{hook}/sync", connections=32, seconds=SECONDS, body=SMALL)
    few = await wrk(f"{hook}/sync", connections=2, seconds=SECONDS // 2, body=SMALL)
    return [
        Result(
            "sync_per_s_32",
            many.per_s,
            f"code and data step, 32 in flight, p50 {many.p50_ms:.1f} ms, {many.errors} errors",
            ">=",
            1500,
        ),
        Result("sync_p50_ms_2", few.p50_ms, f"2 in flight, p99 {few.p99_ms:.1f} ms", "<=", 5),
    ]


async def _finishing(platform: Installation, hook: str) -> list[Result]:
    before, cpu_before, began = await _ended(platform), platform.cpu_s(), time.monotonic()
    await wrk(hook, connections=32, seconds=SECONDS, body=SMALL)
    await _drained(platform)
    took, cpu_after = time.monotonic() - began, platform.cpu_s()
    runs = await _ended(platform) - before
    parts = {part: (used - cpu_before.get(part, 0)) * 1000 / runs for part, used in cpu_after.items()}
    told = ", ".join(f"{part} {ms:.2f}" for part, ms in sorted(parts.items(), key=lambda item: -item[1]))
    return [
        Result("runs_finished_per_s", runs / took, f"webhook, code, data step; {runs} runs, queue drained", ">=", 2000),
        Result("cpu_ms_per_run", sum(parts.values()), told, "<=", 0.8),
    ]


async def _steps(platform: Installation, ledger: Ledger) -> list[Result]:
    async def latency_ms(steps: list[dict[str, object]]) -> float:
        hook = f"{platform.base}/api/v1/webhooks/{platform.flow('Steps', steps)}/sync"
        return (await wrk(hook, connections=1, seconds=3, body=SMALL)).p50_ms

    def pure(number: int) -> dict[str, object]:
        return {**DATA, "id": f"s{number}", "input": {"fields": {"a": "{{trigger.body.id}}"}}}

    def effect(number: int) -> dict[str, object]:
        sent = {"method": "POST", "url": ledger.url, "body": {"n": number}}
        return {"id": f"s{number}", "kind": "action", "piece": "http", "action": "request", "input": sent}

    one_pure, many_pure = await latency_ms([pure(0)]), await latency_ms([pure(n) for n in range(200)])
    one_effect, many_effect = await latency_ms([effect(0)]), await latency_ms([effect(n) for n in range(20)])
    return [
        Result("pure_step_ms", (many_pure - one_pure) / 199, "199 more steps, one request at a time", "<=", 0.3),
        Result(
            "effect_step_ms", (many_effect - one_effect) / 19, "19 more local HTTP calls, barrier included", "<=", 3
        ),
    ]


async def _listing(platform: Installation) -> list[Result]:
    for number in range(50):
        platform.client.post("/api/v1/flows", json={"name": f"Flow {number}"}).raise_for_status()
    headers = {"Authorization": f"Bearer {platform.token}"}
    url = f"{platform.base}/api/v1/flows?page_size=20"
    rate = await wrk(url, connections=32, seconds=SECONDS // 2, headers=headers)
    half = await paced(url, per_s=rate.per_s / 2, seconds=SECONDS // 2, headers=headers)
    return [
        Result("api_list_per_s", rate.per_s, f"a page of 20 flows, 32 in flight, {rate.errors} errors", ">=", 2500),
        Result("api_list_p99_ms_half", half.p99_ms, f"open loop at {half.per_s:.0f}/s", "<=", 30),
    ]


async def _recovering(platform: Installation, ledger: Ledger) -> Result:
    """Kill the executor in the middle of a loop; how long until the loop goes on."""
    call = {"method": "POST", "url": f"{ledger.url}/slow", "body": {"n": "{{each.index}}"}}
    step = {"id": "tell", "kind": "action", "piece": "http", "action": "request", "input": call}
    flow = platform.flow(
        "Slow loop", [{"id": "each", "kind": "loop", "items": "{{trigger.body.lines}}", "steps": [step]}]
    )
    platform.client.post(f"/api/v1/webhooks/{flow}", content=SMALL, headers={"content-type": "application/json"})
    await ledger.arrived(2)
    os.kill(platform.pid_of("executor"), signal.SIGKILL)
    killed = time.monotonic()
    await ledger.arrived(1)
    took = time.monotonic() - killed
    await _drained(platform)
    return Result("recovery_s", took, "kill -9 of the executor in a loop, until the next call arrives", "<=", 5)


def _starting(platform: Installation) -> list[Result]:
    platform.stop()
    starts = []
    for _ in range(3):
        starts.append(platform.start())
        if len(starts) < 3:
            platform.stop()
    time.sleep(5)
    return [
        Result("start_s", sorted(starts)[1], "warm, command to the first ready answer, median of 3", "<=", 3),
        Result("idle_pss_mib", platform.pss_mib(), "all processes and PostgreSQL, 5 s after the start", "<=", 300),
    ]


async def _ended(platform: Installation) -> int:
    return (await _counts(platform))[0]


async def _drained(platform: Installation) -> None:
    """Wait until everything accepted has ended."""
    before = -1
    async with asyncio.timeout(180):
        while True:
            ended, live, waiting = await _counts(platform)
            if live == 0 and waiting == 0 and ended == before:
                return
            before = ended
            await asyncio.sleep(0.1)


async def _counts(platform: Installation) -> tuple[int, int, int]:
    """Runs ended, runs live, and records of the log that have not become runs."""
    connection = await asyncpg.connect(platform.database_url)
    try:
        row = await connection.fetchrow(
            """SELECT (SELECT count(*) FROM executor.run), (SELECT count(*) FROM executor.run_live),
                (SELECT coalesce(sum(h.next_offset - p.next_offset), 0) FROM log.head h
                   JOIN log.topic t ON t.id = h.topic_id
                   JOIN executor.position p ON p.topic = t.name AND p.partition = h.partition)"""
        )
    finally:
        await connection.close()
    assert row is not None
    return int(row[0]), int(row[1]), int(row[2])
