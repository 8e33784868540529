"""Each module says what it decides and what it leaves to others, and the files it names are there."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = ("chassis", "flowlang", "services", "gateway", "cli")
NO_DECISIONS = ("__init__.py", "__main__.py")


def _docstrings() -> Iterator[tuple[str, str]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "migrations" not in path.parts:
                yield path.relative_to(ROOT).as_posix(), ast.get_docstring(ast.parse(path.read_text())) or ""


def test_every_module_says_what_it_decides_and_what_it_leaves() -> None:
    silent = [
        name
        for name, text in _docstrings()
        if not name.endswith(NO_DECISIONS) and not ("Decides:" in text and "Leaves:" in text)
    ]
    assert silent == []


def test_files_that_docstrings_name_are_there() -> None:
    there = {path.name for path in ROOT.rglob("*.py") if ".venv" not in path.parts}
    gone = [
        f"{name}: {file}"
        for name, text in _docstrings()
        for file in re.findall(r"(?<![\w<{])([a-z_]\w*\.py)\b", text)
        if file not in there
    ]
    assert gone == []
