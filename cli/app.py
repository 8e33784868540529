"""The `millrace` command: which commands there are, and where each lives.

Decides: names and order of the commands. Leaves: each command to its module. What is heavy (HTTP, the services) is
imported when a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cli import account, connections, flows, runs

app = typer.Typer(
    name="millrace",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Workflow automation that never loses or repeats work: run it, fill it, watch it.",
)


@app.command()
def up() -> None:
    """Run the platform here in the foreground, with a PostgreSQL of its own (MILLRACE_HOME, MILLRACE_PORT)."""
    from cli.supervise import supervise

    sys.exit(supervise())


@app.command()
def service(name: Annotated[str, typer.Argument(help="auth, flows, webhooks, executor, files or gateway.")]) -> None:
    """Run one service alone, as its own process."""
    from cli.up import SERVICES, run_alone

    if name not in (*SERVICES, "gateway"):
        print(f"millrace: there is no service {name!r}. There are: {', '.join(SERVICES)}, gateway.", file=sys.stderr)
        sys.exit(2)
    run_alone(name)


@app.command()
def migrate() -> None:
    """Bring the tables of all services to this version."""
    from cli.database import migrate as migrate_all

    migrate_all()


@app.command()
def backup(file: Annotated[Path, typer.Argument(help="The file to write.")]) -> None:
    """Write the whole installation into one file, also while it runs."""
    from cli.backup import backup as write

    write(file)


@app.command()
def restore(file: Annotated[Path, typer.Argument(help="A file that backup wrote.")]) -> None:
    """Make the installation of a backup anew, in an empty home folder."""
    from cli.backup import restore as read

    read(file)


app.command("sign-up")(account.sign_up)
app.command("sign-in")(account.sign_in)
app.command("sign-out")(account.sign_out)
app.command()(account.whoami)
app.add_typer(flows.app, name="flow")
app.add_typer(connections.app, name="connection")
app.add_typer(runs.app, name="run")
