"""How commands answer: tables and sentences for people, JSON for scripts; and how they fail.

Decides: results go to stdout, everything else to stderr; `--json` gives exactly what the API answered; that what others
wrote does not steer the terminal.
Leaves: what is worth printing to the commands.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import typer

if TYPE_CHECKING:
    from cli.api import Record

P = ParamSpec("P")
R = TypeVar("R")

AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, for scripts.")]
Url = Annotated[str, typer.Option("--url", help="The platform; else MILLRACE_URL, else the one you signed in to.")]
Project = Annotated[str, typer.Option("--project", help="The project's id; else MILLRACE_PROJECT, else your first.")]

_PIPE_WIDTH = 240
_STEERING = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for code in (*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
"""What steers a terminal, or turns the order of letters around, as it is shown instead."""


def explained(command: Callable[P, R]) -> Callable[P, R]:
    """A command whose failures end the process with a sentence and an exit code, without a stack."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        from cli.api import CommandFailed

        try:
            return command(*args, **kwargs)
        except CommandFailed as failure:
            print(f"millrace: {harmless(str(failure))}", file=sys.stderr)
            sys.exit(failure.exit_code)

    return run


def as_json(value: Any) -> None:
    """Print one JSON value."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def tell(text: str) -> None:
    """Print a sentence."""
    print(harmless(text))


def harmless(text: str) -> str:
    """A text of somebody else (a webhook's sender, an outside system) that a terminal only shows."""
    return text.translate(_STEERING)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], empty: str) -> None:
    """Print rows under their columns, or the sentence `empty` when there is none."""
    from rich.console import Console
    from rich.table import Table

    grid = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        grid.add_row(*(harmless(cell) for cell in row))
    if not grid.rows:
        print(empty)
        return
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False, markup=False).print(grid)


def when(written: str | None) -> str:
    """A time of the API as people read it, in this machine's zone."""
    if not written:
        return "-"
    from datetime import datetime

    return datetime.fromisoformat(written).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def value(found: Any, indent: str) -> str:
    """A JSON value: on one line when it is short, else below and indented."""
    line = json.dumps(found, ensure_ascii=False)
    if len(line) <= 100:  # a line's worth
        return line
    return "\n" + "\n".join(indent + row for row in json.dumps(found, ensure_ascii=False, indent=2).splitlines())


def faults(found: Sequence[Record]) -> str:
    """Faults of a draft, a line each."""
    return "\n".join(f"  {fault['step_id'] or 'flow'} {fault['field']}: {fault['message']}" for fault in found)
