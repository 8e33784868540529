"""`millrace connection …`: other systems' secrets. They go in and never come out.

Decides: where a secret is read from. Leaves: the call to api.py.
"""

from __future__ import annotations

from typing import Annotated

import typer

from cli.account import secret
from cli.printing import AsJson, Project, Url, as_json, explained, table, tell, when

app = typer.Typer(no_args_is_help=True, help="Secrets of other systems, for flows to use.")
_PATH = "/api/v1/connections"


@app.command()
@explained
def create(
    name: Annotated[str, typer.Argument(help="What flows call it: connections.NAME.secret.")],
    url: Url = "",
    project: Project = "",
    json: AsJson = False,
) -> None:
    """Keep a secret, encrypted. It is asked for, or read from stdin; never an argument, which others could see."""
    from cli.api import Api

    with Api(url, project) as api:
        made = api.send("POST", _PATH, {"name": name, "kind": "secret_text", "secret": secret("Secret", again=True)})
    if json:
        as_json(made)
    else:
        tell(f"Created connection {made['name']} ({made['id']}).")


@app.command("list")
@explained
def list_(
    limit: Annotated[int, typer.Option(min=1, help="Most connections to list.")] = 100,
    url: Url = "",
    project: Project = "",
    json: AsJson = False,
) -> None:
    """List connections, newest first, without their secrets."""
    from cli.api import Api

    with Api(url, project) as api:
        found = list(api.all_of(_PATH, "connections", limit))
    if json:
        as_json(found)
        return
    rows = [(one["id"], one["name"], one["kind"], when(one["updated_at"])) for one in found]
    table(("ID", "NAME", "KIND", "UPDATED"), rows, "There are no connections. `millrace connection create` makes one.")


@app.command()
@explained
def delete(
    connection: Annotated[str, typer.Argument(help="The connection's id or name.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = "",
    project: Project = "",
) -> None:
    """Delete a connection for good. Runs that need it fail from then on."""
    from cli.api import Api

    with Api(url, project) as api:
        named = {one["name"]: one["id"] for one in api.all_of(_PATH, "connections", 10_000)}
        if not yes:
            typer.confirm(f"Delete connection {connection} for good?", abort=True, err=True)
        api.send("DELETE", f"{_PATH}/{named.get(connection, connection)}")
    tell(f"Deleted connection {connection}.")
