"""The `millrace` command: which commands there are, and where each lives.

Decides: names and order of the commands. Leaves: each command to its own module, imported when it is called.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

app = typer.Typer(
    name="millrace", no_args_is_help=True, add_completion=False, help="Workflow automation: run it, fill it, watch it."
)


@app.command()
def up() -> None:
    """Run the platform on this machine in the foreground, with a PostgreSQL of its own."""
    from cli.supervise import supervise

    sys.exit(supervise())


@app.command()
def service(name: Annotated[str, typer.Argument(help="auth, flows, webhooks, executor, files or gateway.")]) -> None:
    """Run one service alone, as its own process."""
    from cli.up import run_alone

    try:
        run_alone(name)
    except KeyError:
        sys.exit(f"millrace: there is no service {name!r}. There are: auth, flows, webhooks, executor, files, gateway.")
