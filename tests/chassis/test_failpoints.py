"""Failpoints do what they are told, where they are told, and leave a trace."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chassis import failpoints
from chassis.errors import StartRefused
from chassis.failpoints import FailpointError

ROOT = Path(__file__).resolve().parents[2]


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"from chassis import failpoints\n{code}"],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_crash_kills_at_the_given_hit_and_what_was_reached_is_on_record(tmp_path: Path) -> None:
    log = tmp_path / "reached"
    done = run(
        "for n in range(9): failpoints.hit('a'); print(n, flush=True)",
        MILLRACE_FAILPOINTS="a=crash@3",
        MILLRACE_FAILPOINT_LOG=str(log),
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == "0\n1\n"
    assert [line.split()[:2] for line in log.read_text().splitlines()] == [["a", "1"], ["a", "2"], ["a", "3"]]


def test_the_count_goes_on_in_the_next_life_so_that_a_point_kills_once(tmp_path: Path) -> None:
    armed = {"MILLRACE_FAILPOINTS": "a=crash@2", "MILLRACE_FAILPOINT_LOG": str(tmp_path / "reached")}
    lives = [run("for n in range(3): failpoints.hit('a')", **armed).returncode for _ in range(2)]
    assert lives == [-signal.SIGKILL, 0]
    assert failpoints.recorded(armed["MILLRACE_FAILPOINT_LOG"]) == {"a": 5}


def test_unarmed_points_do_nothing() -> None:
    failpoints.hit("anything")


async def test_error_raises_at_its_hit_alone() -> None:
    with failpoints.armed("a=error@2") as reached:
        failpoints.hit("a")
        with pytest.raises(FailpointError):
            await failpoints.reach("a")
        failpoints.hit("a")
        failpoints.hit("other")
    assert reached == {"a": 3, "other": 1}
    failpoints.hit("a")


async def test_hang_holds_the_task_alone() -> None:
    with failpoints.armed("a=hang,b=sleep:0.001"):
        task = asyncio.ensure_future(failpoints.reach("a"))
        await failpoints.reach("b")
        assert not task.done()
        task.cancel()


@pytest.mark.parametrize("text", ["a", "a=", "=crash", "a=explode", "a=sleep:x", "a=crash@x"])
def test_a_text_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(StartRefused, match="MILLRACE_FAILPOINTS"):
        failpoints.parse(text)
