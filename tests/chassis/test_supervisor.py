"""Children are started, started again, ended in order, and never outlive their supervisor."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chassis.supervisor import Child, ChildLost, Patience, Supervisor

ROOT = Path(__file__).resolve().parents[2]
QUICK = Patience(ready_s=10, stop_s=5, back_off_s=(0.01, 0.02), give_up_after=3)
READY = "import os; os.write(int(os.environ['MILLRACE_READY_FD']), b'ready\\n');"


def python(name: str, code: str, **env: str) -> Child:
    return Child(name, [sys.executable, "-c", code], env)


def sleeper(name: str) -> Child:
    return python(name, f"{READY} import time; time.sleep(60)")


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_killed_child_is_started_again_and_its_death_told() -> None:
    deaths: list[tuple[str, int]] = []
    async with Supervisor([sleeper("a")], on_death=lambda *death: deaths.append(death), patience=QUICK) as supervisor:
        await supervisor.ready()
        first = supervisor.pid("a")
        assert first
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: supervisor.pid("a") not in {None, first})
        assert deaths == [("a", -signal.SIGKILL)]
        second = supervisor.pid("a")
        assert second
    assert not alive(second)


async def test_children_are_ended_in_the_given_order(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = f"""
import os, signal, sys, time
def on_term(*_):
    time.sleep(0.05)
    with open({str(log)!r}, "a") as file: file.write(os.environ["NAME"] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, on_term)
{READY}
time.sleep(60)
"""
    names = ["edge", "executor", "last"]
    async with Supervisor([python(name, code, NAME=name) for name in names], patience=QUICK) as supervisor:
        await supervisor.ready()
    assert log.read_text().split() == names


async def test_a_child_that_ignores_term_is_killed() -> None:
    code = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); {READY} time.sleep(60)"
    async with Supervisor([python("deaf", code)], patience=Patience(stop_s=0.1)) as supervisor:
        await supervisor.ready()
        pid = supervisor.pid("deaf")
        assert pid
    assert not alive(pid)


async def test_what_a_child_left_behind_dies_with_it(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    code = f"""
import subprocess, sys, time
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open({str(file)!r}, "a").write(f"{{other.pid}}\\n")
{READY}
time.sleep(60)
"""
    async with Supervisor([python("a", code)], patience=QUICK) as supervisor:
        await supervisor.ready()
        grandchild = int(file.read_text())
        os.kill(supervisor.pid("a") or 0, signal.SIGKILL)
        await eventually(lambda: not alive(grandchild))


async def test_children_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    code = """
import asyncio, sys
from chassis.supervisor import Child, Supervisor
async def main():
    ready = "import os, time; os.write(int(os.environ['MILLRACE_READY_FD']), b'ready'); time.sleep(60)"
    async with Supervisor([Child("a", [sys.executable, "-c", ready])]) as supervisor:
        await supervisor.ready()
        print(supervisor.pid("a"), flush=True)
        await supervisor.wait()
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.kill()
    await eventually(lambda: not alive(child))


async def test_a_child_that_never_becomes_ready_is_given_up_with_a_reason() -> None:
    async with Supervisor([python("broken", "raise SystemExit(3)")], patience=QUICK) as supervisor:
        with pytest.raises(ChildLost, match="broken ended with status 3 at 3 starts"):
            await supervisor.ready()


async def test_a_child_that_refuses_to_start_is_not_started_again() -> None:
    deaths: list[str] = []
    child = python("picky", "raise SystemExit(78)")
    async with Supervisor([child], on_death=lambda name, _: deaths.append(name), patience=QUICK) as supervisor:
        with pytest.raises(ChildLost, match="picky cannot start as it is configured"):
            await supervisor.wait()
    assert deaths == ["picky"]


async def test_a_program_that_is_not_there_is_lost() -> None:
    async with Supervisor([Child("none", ["/no/such/program"])], patience=QUICK) as supervisor:
        with pytest.raises(ChildLost):
            await supervisor.ready()


async def test_a_child_that_hangs_before_it_is_ready_is_killed_and_tried_again() -> None:
    deaths: list[int] = []
    child = python("hung", "import time; time.sleep(60)")
    patience = Patience(ready_s=0.3, back_off_s=(0.01, 0.01), give_up_after=2)
    async with Supervisor([child], on_death=lambda _, status: deaths.append(status), patience=patience) as supervisor:
        with pytest.raises(ChildLost):
            await supervisor.ready()
    assert deaths == [-signal.SIGKILL] * 2


async def test_readiness_by_an_address_that_answers(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    code = f"import socket, time; s = socket.socket(socket.AF_UNIX); s.bind({str(path)!r}); s.listen(); time.sleep(60)"
    child = Child("a", [sys.executable, "-c", code], ready="address", address=f"unix:{path}")
    async with Supervisor([child], patience=QUICK) as supervisor:
        await supervisor.ready()
        assert path.exists()


async def test_a_service_tells_its_supervisor_that_it_is_ready(tmp_path: Path) -> None:
    code = """
from chassis.lifecycle import Running, Service, run_services
from chassis.settings import ServiceSettings
async def build(settings, chassis):
    return Running()
run_services([Service(build, ServiceSettings, "auth")])
"""
    child = python("service", code, MILLRACE_HOME=str(tmp_path), PYTHONPATH=str(ROOT))
    async with Supervisor([child], patience=QUICK) as supervisor:
        await supervisor.ready()
        assert supervisor.pid("service")


def test_the_supervisor_stays_small() -> None:
    code = "import chassis.supervisor, sys; print([name for name in ('grpc', 'pydantic') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
