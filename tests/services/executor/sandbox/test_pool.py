"""Which jail runs which call, and what happens to calls when their jail is slow, over a limit or dead."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from services.executor.sandbox import (
    CodeTimedOut,
    CodeUnit,
    MemoryExceeded,
    Sandbox,
    SandboxError,
    SandboxSettings,
    SandboxUnavailable,
)
from services.executor.sandbox import pool as pool_module
from services.executor.sandbox.calls import Call
from services.executor.sandbox.process import JailGround
from services.executor.sandbox.wire import RUN
from tests.services.executor.sandbox.conftest import Workbench

ADD = "export const code = async (n) => n + 1"
ENDLESS = "export const code = () => { for (;;); }"
SLOW = "export const code = (ms) => { const end = Date.now() + ms; while (Date.now() < end); return 'slow' }"
HEAP_BOMB = "export const code = () => { const all = []; for (;;) all.push(new Array(1e5).fill(1.5)) }"


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_many_calls_of_a_project_share_a_jail(fresh_bench: Workbench) -> None:
    assert await asyncio.gather(*(fresh_bench.run(ADD, n) for n in range(500))) == list(range(1, 501))
    assert len(fresh_bench.sandbox.jails_of("project")) == 1


async def test_a_jail_never_serves_a_second_project(fresh_bench: Workbench) -> None:
    seen: dict[int, str] = {}
    for turn in range(2):
        for project in ("a", "b", "c", "d"):
            assert await fresh_bench.run(ADD, turn, project=project) == turn + 1
            for pid in fresh_bench.sandbox.jails_of(project):
                assert seen.setdefault(pid, project) == project
    assert len(seen) > 4  # two places for four projects: jails were killed and made anew, not handed on
    used = fresh_bench.sandbox.jails_of("d") + fresh_bench.sandbox.jails_of("c")
    await asyncio.sleep(0.1)
    assert [pid for pid in seen if alive(pid)] == [pid for pid in seen if pid in used]


async def test_the_jail_used_longest_ago_makes_room(fresh_bench: Workbench) -> None:
    for project in ("a", "b", "a", "c"):
        await fresh_bench.run(ADD, 1, project=project)
    assert fresh_bench.sandbox.jails_of("b") == ()
    assert len(fresh_bench.sandbox.jails_of("a")) == 1


async def test_projects_wait_for_each_other_and_none_starves(fresh_bench: Workbench) -> None:
    """Two places, both held by projects that always have more to do; a third one still gets its turn."""
    stop = asyncio.Event()

    async def busy(project: str) -> int:
        done = 0
        while not stop.is_set():
            await asyncio.gather(*(fresh_bench.run(SLOW, 3, project=project) for _ in range(4)))
            done += 4
        return done

    async with asyncio.TaskGroup() as group:
        greedy = [group.create_task(busy(project)) for project in ("a", "b")]
        await asyncio.sleep(0.3)
        for n in range(3):
            assert await asyncio.wait_for(fresh_bench.run(ADD, n, project="c"), 20) == n + 1
        stop.set()
    assert all(task.result() > 0 for task in greedy)


async def test_a_time_out_fails_one_call_and_spares_those_behind(fresh_bench: Workbench) -> None:
    calls = [fresh_bench.run(ADD, n) for n in range(20)]
    calls.insert(5, fresh_bench.run(ENDLESS, timeout_ms=200))
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results.pop(5), CodeTimedOut)
    assert results == list(range(1, 21))


async def test_a_heap_bomb_fails_one_call_and_spares_those_behind(fresh_bench: Workbench) -> None:
    calls = [fresh_bench.run(ADD, n) for n in range(20)]
    calls.insert(5, fresh_bench.run(HEAP_BOMB, timeout_ms=20_000))
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results.pop(5), MemoryExceeded)
    assert results == list(range(1, 21))


async def test_waiting_in_line_does_not_count_as_running(fresh_bench: Workbench) -> None:
    """Both places are taken for longer than the limit of the calls that wait."""
    slow = [asyncio.create_task(fresh_bench.run(SLOW, 600, timeout_ms=10_000)) for _ in range(2)]
    await asyncio.sleep(0.1)
    quick = [fresh_bench.run(ADD, n, timeout_ms=300) for n in range(5)]
    assert await asyncio.gather(*quick) == [1, 2, 3, 4, 5]
    assert await asyncio.gather(*slow) == ["slow", "slow"]


async def test_calls_behind_a_slow_one_move_to_another_jail(fresh_bench: Workbench) -> None:
    await fresh_bench.run(ADD, 0)
    slow = asyncio.create_task(fresh_bench.run(SLOW, 3_000, timeout_ms=10_000))
    await asyncio.sleep(0)
    assert await asyncio.gather(*(fresh_bench.run(ADD, n) for n in range(10))) == list(range(1, 11))
    assert not slow.done()
    assert len(fresh_bench.sandbox.jails_of("project")) == 2
    assert await slow == "slow"


async def test_a_call_that_had_not_begun_is_not_skipped_with_those_behind_it(fresh_bench: Workbench) -> None:
    """Once the first in line was taken for running, and the jail, late to begin it, was told to skip it as well."""
    await fresh_bench.run(ADD, 0)
    (pid,) = fresh_bench.sandbox.jails_of("project")
    os.kill(pid, signal.SIGSTOP)
    first, *behind = [asyncio.create_task(fresh_bench.run(ADD, n)) for n in range(6)]
    assert await asyncio.gather(*behind) == [2, 3, 4, 5, 6]
    assert not first.done()
    os.kill(pid, signal.SIGCONT)
    assert await first == 1
    assert pid in fresh_bench.sandbox.jails_of("project")


async def test_death_of_a_jail_that_served_before_is_tried_once_more(fresh_bench: Workbench) -> None:
    await fresh_bench.run(ADD, 1)
    (first,) = fresh_bench.sandbox.jails_of("project")
    call = asyncio.create_task(fresh_bench.run(SLOW, 500))
    await asyncio.sleep(0.2)
    os.kill(first, signal.SIGKILL)
    assert await call == "slow"
    (second,) = fresh_bench.sandbox.jails_of("project")
    assert second != first


async def test_death_of_a_fresh_jail_is_the_calls_own(fresh_bench: Workbench) -> None:
    call = asyncio.create_task(fresh_bench.run(SLOW, 5_000, timeout_ms=10_000))
    while not fresh_bench.sandbox.jails_of("project"):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    os.kill(fresh_bench.sandbox.jails_of("project")[0], signal.SIGKILL)
    with pytest.raises(MemoryExceeded):
        await call


@pytest.mark.parametrize(
    ("sort", "body"),
    [(ord("c"), b'["\\ud83d"]\n1'), (ord("c"), b"\xff"), (ord("e"), b"{"), (ord("i"), b""), (7, b"x")],
)
async def test_an_answer_that_cannot_be_read_fails_its_call_and_raises_nothing(sort: int, body: bytes) -> None:
    """What a jail writes is not to be trusted: an exception here lost all answers behind it."""
    future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    Call("project", RUN, CodeUnit("version", "step", "javascript", ADD), b"1", 1.0, future).settle(sort, body)
    with pytest.raises(SandboxError):
        future.result()


async def test_a_cancelled_call_is_stopped(fresh_bench: Workbench) -> None:
    await fresh_bench.run(ADD, 1)
    (pid,) = fresh_bench.sandbox.jails_of("project")
    call = asyncio.create_task(fresh_bench.run(ENDLESS, timeout_ms=60_000))
    await asyncio.sleep(0.05)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with asyncio.timeout(5):
        while alive(pid):
            await asyncio.sleep(0.01)
    assert await fresh_bench.run(ADD, 1) == 2


async def test_a_jail_that_saw_too_many_versions_is_replaced(fresh_bench: Workbench) -> None:
    """Three realms are kept in this sandbox."""
    pids: list[int] = []
    for version in range(7):
        assert await fresh_bench.run(ADD, version, version=f"v{version}") == version + 1
        pids += fresh_bench.sandbox.jails_of("project")
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


async def test_the_same_step_of_two_versions_keeps_its_own_source(fresh_bench: Workbench) -> None:
    for version, source in (("one", "export const code = () => 1"), ("two", "export const code = () => 2")) * 2:
        assert await fresh_bench.run(source, version=version) == (1 if version == "one" else 2)


async def test_leaving_the_sandbox_kills_all_jails_and_fails_what_runs() -> None:
    async with Sandbox(SandboxSettings(max_jails=2)) as sandbox:
        bench = Workbench(sandbox)
        await bench.run(ADD, 1)
        pids = sandbox.jails_of("project")
        call = asyncio.create_task(bench.run(ENDLESS, timeout_ms=60_000))
        await asyncio.sleep(0.05)
    with pytest.raises(SandboxUnavailable):
        await call
    assert not any(alive(pid) for pid in pids)


async def test_without_walls_calls_are_refused_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The jail is told that its kernel offers nothing, which no machine of ours really does."""
    blind = "import services.executor.sandbox.walls as w; w.restrict_files = lambda *_: 0; "
    boot = JailGround.boot.replace("from services", blind + "from services")
    monkeypatch.setattr(JailGround.__init__, "__defaults__", (boot,))
    monkeypatch.setattr(pool_module, "filter_program", lambda: b"")
    async with Sandbox(SandboxSettings(max_jails=1)) as sandbox:
        for _ in range(2):
            with pytest.raises(SandboxUnavailable, match="neither Landlock nor seccomp") as raised:
                await sandbox.run_code("p", CodeUnit("v", "s", "javascript", ADD), b"1", 1000)
            assert raised.value.kind == "SANDBOX_UNAVAILABLE"
    async with Sandbox(SandboxSettings(max_jails=1, allow_without_walls=True)) as sandbox:
        assert await Workbench(sandbox).run(ADD, 1) == 2
        assert "seccomp" not in sandbox.walls


async def test_jails_that_cannot_start_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JailGround.__init__, "__defaults__", ("raise SystemExit(3)",))
    async with Sandbox(SandboxSettings(max_jails=1)) as sandbox:
        with pytest.raises(SandboxUnavailable, match="do not start"):
            await asyncio.wait_for(sandbox.run_code("p", CodeUnit("v", "s", "javascript", ADD), b"1", 1000), 20)


def test_jails_die_with_their_executor() -> None:
    executor = textwrap.dedent("""
        import asyncio, os, signal
        from services.executor.sandbox import CodeUnit, Sandbox
        async def main():
            async with Sandbox() as sandbox:
                await sandbox.run_code("p", CodeUnit("v", "s", "javascript", "export const code = () => 1"), b"1", 5000)
                print(*sandbox.jails_of("p"), flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
        asyncio.run(main())
    """)
    child = subprocess.run([sys.executable, "-c", executor], capture_output=True, text=True, timeout=30, check=False)
    assert child.returncode == -signal.SIGKILL
    (pid,) = map(int, child.stdout.split())
    for _ in range(100):
        if not alive(pid):
            return
        signal.sigtimedwait([], 0.02)
    pytest.fail("the jail outlived its executor")


async def test_a_jail_holds_little_memory(fresh_bench: Workbench) -> None:
    await fresh_bench.run(ADD, 1)
    (pid,) = fresh_bench.sandbox.jails_of("project")
    held = {
        name: int(size.split()[0])
        for name, _, size in (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        if name in ("RssAnon", "Threads")
    }
    assert held["RssAnon"] < 25_000  # kB of its own; the rest is the engine's code, which all jails share


def test_the_executors_half_is_not_in_a_jail() -> None:
    listing = "import sys; import services.executor.sandbox.jail; print(*sys.modules)"
    child = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, timeout=30, check=True)
    loaded = set(child.stdout.split())
    assert not loaded & {
        "asyncio",
        "msgspec",
        "services.executor.sandbox.pool",
        "services.executor.sandbox.process",
        "dataclasses",
    }
