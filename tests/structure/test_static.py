"""What tools judge: format, lint, types, the arrows between packages, the protos and their stubs."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = Path(sys.executable).parent


def _holds(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)}\n{done.stdout[-12_000:]}{done.stderr[-4_000:]}", pytrace=False)


def test_everything_is_formatted() -> None:
    _holds(str(TOOLS / "ruff"), "format", "--check", "--quiet", ".")


def test_the_linter_finds_nothing() -> None:
    _holds(str(TOOLS / "ruff"), "check", "--quiet", ".")


def test_types_are_right() -> None:
    folders = ["chassis", "flowlang", "services", "gateway", "cli", "pieces", "sdk/src", "deploy", "docs", "tests"]
    folders += [name for name in ("bench", "examples") if list((ROOT / name).glob("*.py"))]
    _holds(str(TOOLS / "mypy"), "--no-error-summary", *folders)


def test_arrows_between_packages_go_one_way() -> None:
    _holds(str(TOOLS / "lint-imports"))


def test_stubs_are_those_of_the_protos() -> None:
    _holds(sys.executable, "proto/generate.py", "--check")


@pytest.mark.slow  # fetches buf the first time
def test_protos_are_linted() -> None:
    _holds("bash", "deploy/development/buf.sh", "lint")
