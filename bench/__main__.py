"""`make bench`: measures the platform in embedded mode against performance.md; prints a table, writes
bench/out/summary.json.

Load generators run on the same machine; their CPU is not in `cpu_ms_per_run`. PostgreSQL runs with durable settings.
"""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
import sys
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from bench.measures import Result, measure

OUT = Path(__file__).parent / "out" / "summary.json"


def main() -> None:
    """Measure everything, print, write."""
    results = asyncio.run(measure())
    summary = {result.name: round(result.value, 3) for result in results if result.summary}
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")
    console = Console(width=120)
    console.print(_table(results))
    console.print(_conditions())
    console.print(f"Written to {OUT.relative_to(Path.cwd())}")


def _table(results: list[Result]) -> Table:
    table = Table("what", "measured", "budget", "met", "conditions")
    for result in results:
        met = "" if result.budget is None else ("yes" if result.met else "NO")
        budget = "" if result.budget is None else f"{result.comparison} {result.budget:g}"
        table.add_row(result.name, f"{result.value:,.3f}", budget, met, result.conditions)
    return table


def _conditions() -> str:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, Python {sys.version.split()[0]}, commit {commit.stdout.strip()}"
    )


if __name__ == "__main__":
    main()
