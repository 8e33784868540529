"""The heart under 10,000 random schedules of crashes, stalls, lost answers and second deliveries; each seed can be
replayed.

`SIMULATION_SCHEDULES` and `SIMULATION_SEED` choose how many and which; a failure prints its seed.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.scenario import Outcome, Schedule

SCHEDULES = int(os.environ.get("SIMULATION_SCHEDULES", "10000"))
FIRST_SEED = int(os.environ.get("SIMULATION_SEED", "1"))
AT_ONCE = 250


def _run(first: int) -> tuple[list[Outcome], tuple[int, int, int]]:
    """Outcomes of broken schedules, and how many runs, crashes and interrupted effects there were in all."""
    outcomes = [Schedule(seed).run() for seed in range(first, min(first + AT_ONCE, FIRST_SEED + SCHEDULES))]
    broken = [outcome for outcome in outcomes if outcome.broken]
    counts = [(outcome.runs, outcome.crashes, outcome.interrupted) for outcome in outcomes]
    runs, crashes, interrupted = (sum(column) for column in zip(*counts, strict=True))
    return broken, (runs, crashes, interrupted)


def test_no_schedule_loses_repeats_or_strands_work() -> None:
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        results = list(processes.map(_run, range(FIRST_SEED, FIRST_SEED + SCHEDULES, AT_ONCE)))
    broken = [outcome for result in results for outcome in result[0]]
    runs, crashes, interrupted = (sum(column) for column in zip(*(result[1] for result in results), strict=True))
    print(f"{SCHEDULES} schedules: {runs} runs, {crashes} crashes, {interrupted} interrupted, {len(broken)} broken")
    assert not broken, f"seed {broken[0].seed}: {broken[0].broken}"
    assert crashes, "no schedule killed an executor: the test proves nothing"
    assert interrupted, "no kill met an effect in flight: the test proves nothing"
