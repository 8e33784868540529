"""ARCHITECTURE.md leads to what is there: its files, its functions, the keepers of the invariants and their tests."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = (ROOT / "ARCHITECTURE.md").read_text()
PATH = r"`([a-z_]+/(?:[\w.]+/)*[\w.]*)`"
NAMED = re.compile(PATH + r"\s+`([A-Za-z_][\w.]*)`")
ROW = re.compile(r"^\| (I\d) \| .* \| (.*) \| (.*) \|$", re.M)


def _stands_in(name: str, text: str) -> bool:
    return all(re.search(rf"\b{part}\b", text) for part in name.split("."))


def test_every_file_named_is_there() -> None:
    assert [path for path in re.findall(PATH, TEXT) if not (ROOT / path).exists()] == []


def test_every_function_stands_in_the_file_named_beside_it() -> None:
    pairs = [(path, name) for path, name in NAMED.findall(TEXT) if (ROOT / path).is_file()]
    assert len(pairs) > 30
    assert [(path, name) for path, name in pairs if not _stands_in(name, (ROOT / path).read_text())] == []


def test_there_is_a_row_for_each_invariant() -> None:
    assert [number for number, _, _ in ROW.findall(TEXT)] == [f"I{n}" for n in range(1, 10)]


@pytest.mark.parametrize(("number", "keepers", "tests"), ROW.findall(TEXT))
def test_a_keeper_carries_its_number_and_a_test_breaks_without_it(number: str, keepers: str, tests: str) -> None:
    for path, _ in NAMED.findall(keepers):
        assert re.search(rf"\b{number}\b", (ROOT / path).read_text()), f"{path} does not say {number}"
    found = NAMED.findall(tests)
    assert found
    for path, name in found:
        assert f"def {name}(" in (ROOT / path).read_text(), f"{path} has no {name}"


def test_every_folder_of_code_has_its_sentence() -> None:
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))}
    services = {f"services/{path.name}" for path in (ROOT / "services").iterdir() if (path / "service.py").exists()}
    kept = {name for name in folders if name != "services" and any((ROOT / name).iterdir())}
    assert sorted(name for name in kept | services if f"| `{name}/` |" not in TEXT) == []
