"""Words that may not stand in the repository, and words in its documents that must be true."""

import re
import subprocess
from pathlib import Path

from tests.suites import SUITES

ROOT = Path(__file__).resolve().parent.parent.parent
# Put together from halves, so that this file does not find itself.
REGISTRIES = tuple(
    left + right
    for left, right in (
        ("pypi.", "org"),
        ("files.python", "hosted"),
        ("registry.np", "mjs"),
        ("repo1.", "maven"),
        ("repo.maven.", "apache"),
        ("docker.", "io"),
        ("ghcr.", "io"),
        ("quay.", "io"),
        ("proxy.", "golang"),
        ("artifact", "ory"),
        ("deb.deb", "ian.org"),
    )
)
MACHINE_PATHS = re.compile("|".join(("/wo" + "rk/", "/home/" + "[a-z]+/", "/Us" + "ers/", "/ro" + "ot/")))


def _texts() -> "dict[str, str]":
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    texts = {}
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file():
            texts[name] = path.read_text(errors="replace")
    return texts


def test_no_registry_and_no_path_of_a_machine_stands_in_the_repository() -> None:
    found = [
        f"{name}: {word}"
        for name, text in _texts().items()
        for word in (*(host for host in REGISTRIES if host in text), *MACHINE_PATHS.findall(text))
    ]
    assert found == []


def test_every_make_target_in_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {
        (name, target)
        for name, text in _texts().items()
        if name.endswith(".md")
        for target in re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", text, re.M)
        for target in target
        if target
    }
    assert {(name, target) for name, target in named if target not in targets} == set()


def test_every_target_has_a_sentence() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, re.M)
    assert phony is not None
    assert {name for name in phony[1].split() if not re.search(rf"^{name}:.*## \w", text, re.M)} == set()


def test_links_between_documents_lead_somewhere() -> None:
    dead = [
        f"{name}: {target}"
        for name, text in _texts().items()
        if name.endswith(".md")
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
        if not (ROOT / name).parent.joinpath(target).exists()
    ]
    assert dead == []


def test_every_command_of_the_documents_exists() -> None:
    from typer.main import get_command

    from cli.app import app

    commands = get_command(app).commands  # type: ignore[attr-defined]  # a group, for an app with several commands
    named = {
        (name, words)
        for name, text in _texts().items()
        if name.endswith(".md") and not name.startswith("docs/decisions/")
        for words in re.findall(r"(?:`|^|\$ |bin/)millrace ([a-z][a-z -]*[a-z])", text, re.M)
    }
    unknown = set()
    for name, words in named:
        head, *rest = words.split(" ")
        command = commands.get(head)
        subcommands = getattr(command, "commands", None)
        if command is None or (subcommands is not None and rest and rest[0] not in subcommands):
            unknown.add((name, words))
    assert unknown == set()


def test_the_table_of_suites_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (.+) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    assert rows == [(name, str(budget_s), holds) for name, (budget_s, holds) in SUITES.items()]
    folders = {path.parent.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("test_*.py")}
    assert folders == set(SUITES)
