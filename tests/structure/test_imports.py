"""Arrows that the import contracts of pyproject.toml cannot say."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def _imports(folder: str) -> Iterator[tuple[str, str]]:
    """Where and what: every module that the modules below a folder import, written out in full."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((str(path.relative_to(ROOT)), name.name) for name in node.names)
            elif isinstance(node, ast.ImportFrom):
                above = ".".join(path.relative_to(ROOT).parts[: -node.level]) + "." if node.level else ""
                module = f"{above}{node.module or ''}".rstrip(".")
                yield from ((str(path.relative_to(ROOT)), f"{module}.{name.name}") for name in node.names)


def test_the_engine_knows_nothing_of_the_executor_around_it() -> None:
    around = [
        (where, what)
        for where, what in _imports("services/executor/engine")
        if what.startswith("services.") and not what.startswith("services.executor.engine")
    ]
    assert around == []


def test_the_chassis_knows_no_domain_of_the_wire() -> None:
    of_domains = [
        (where, what)
        for where, what in _imports("chassis")
        if what.startswith("millrace.") and not what.startswith("millrace.options.")
    ]
    assert of_domains == []


def test_nothing_that_ships_imports_tests_or_development() -> None:
    folders = ("chassis", "flowlang", "services", "gateway", "cli", "pieces", "sdk/src")
    wrong = [
        (where, what)
        for folder in folders
        for where, what in _imports(folder)
        if what.partition(".")[0] in ("tests", "deploy", "bench", "examples")
    ]
    assert wrong == []
