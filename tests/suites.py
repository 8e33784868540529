"""The suites of `make test`: their names, their order, what time each may take.

A suite over its budget is named in the summary; it does not fail, because a busy machine is nobody's fault.
CONTRIBUTING.md tells the same table, and a test in tests/structure compares them.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent

SUITES: dict[str, tuple[int, str]] = {
    "structure": (120, "format, lint, types, arrows between packages, sizes, protos, words"),
    "flowlang": (60, "the flow document: validation, operations, expressions, conditions"),
    "sdk": (10, "what piece authors import"),
    "pieces": (20, "each piece"),
    "chassis": (90, "RPC, streams, settings, database, migrations, supervisor"),
    "services": (180, "each service over real backings; the jail under attack"),
    "gateway": (90, "REST, the live view, schemathesis over the OpenAPI document"),
    "contracts": (120, "each port over each of its adapters, Kafka and Redis included"),
    "simulation": (300, "10,000 schedules of the executor's heart with crashes"),
    "cli": (120, "the command, `millrace up` from outside, backup and restore"),
    "chaos": (900, "kill -9 at random points, against the ledger"),
    "cluster": (180, "every service its own process, on Kafka, Redis and PostgreSQL"),
}
"""Suite (a folder of tests/) → seconds it may take on 2 cores, and what it holds."""

QUICK = ("structure", "flowlang", "sdk", "pieces", "chassis")
"""What `make check` runs, without the tests marked slow."""

_spent: dict[str, float] = defaultdict(float)
_counted: dict[str, int] = defaultdict(int)


def suite_of(path: Path) -> str:
    """The suite that a test file belongs to."""
    parts = path.relative_to(ROOT).parts if path.is_relative_to(ROOT) else ()
    return parts[0] if len(parts) > 1 else ""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="only what `make check` runs")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(SUITES)}
    items.sort(key=lambda item: order.get(suite_of(item.path), len(order)))
    if config.getoption("--quick"):
        kept = [item for item in items if suite_of(item.path) in QUICK and item.get_closest_marker("slow") is None]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = kept


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    began = time.monotonic()
    try:
        return (yield)
    finally:
        _spent[suite_of(item.path)] += time.monotonic() - began
        _counted[suite_of(item.path)] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if len(_counted) < 2:
        return
    terminalreporter.section("suites")
    for name, count in _counted.items():
        budget_s, holds = SUITES.get(name, (0, ""))
        late = f" (over its {budget_s} s)" if budget_s and _spent[name] > budget_s else ""
        terminalreporter.write_line(f"{name:<11} {count:>5} tests {_spent[name]:>7.1f} s{late}  {holds}")
