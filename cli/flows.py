"""`millrace flow …`: documents in and out, publishing, switching on and off.

Decides: which calls a command makes and what it prints. Leaves: the calls to api.py, the words of failures to the
platform.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.printing import AsJson, Project, Url, as_json, explained, faults, table, tell, when

if TYPE_CHECKING:
    from cli.api import Api, Record

app = typer.Typer(no_args_is_help=True, help="Flows: import, publish, switch on and off, export.")
_PATH = "/api/v1/flows"

FlowId = Annotated[str, typer.Argument(metavar="ID", help="The flow's id.")]


@app.command("list")
@explained
def list_(
    name: Annotated[str, typer.Option(help="Only flows whose name contains this.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Most flows to list.")] = 50,
    url: Url = "",
    project: Project = "",
    json: AsJson = False,
) -> None:
    """List flows, newest first."""
    from cli.api import Api

    with Api(url, project) as api:
        found = list(api.all_of(_PATH, "flows", limit, name_contains=name))
    if json:
        as_json(found)
        return
    rows = [
        (one["id"], one["name"], one["state"], str(one["published_version_number"] or "-"), when(one["updated_at"]))
        for one in found
    ]
    table(
        ("ID", "NAME", "STATE", "VERSION", "UPDATED"),
        rows,
        "There are no flows. `millrace flow import FILE` makes one.",
    )


@app.command()
@explained
def show(flow_id: FlowId, url: Url = "", project: Project = "", json: AsJson = False) -> None:
    """Show one flow, and what is to be mended in its draft."""
    from cli.api import Api

    with Api(url, project) as api:
        flow = api.get(f"{_PATH}/{flow_id}")
        draft = api.get(f"{_PATH}/{flow_id}/draft")["draft"]
        if json:
            as_json({"flow": flow, "draft": draft})
            return
        _tell_flow(api, flow)
        if draft["faults"]:
            tell(f"To be mended before it can be published:\n{faults(draft['faults'])}")


@app.command("import")
@explained
def import_(
    file: Annotated[str, typer.Argument(help="A flow document, YAML or JSON; - for stdin.")],
    flow: Annotated[str, typer.Option(help="Replace the draft of this flow instead of making a new one.")] = "",
    publish: Annotated[bool, typer.Option("--publish", help="Publish it at once.")] = False,
    url: Url = "",
    project: Project = "",
    json: AsJson = False,
) -> None:
    """Make a flow of a file, or replace a flow's draft by it."""
    from cli.api import Api, CommandFailed

    try:
        document = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise CommandFailed(f"{file} cannot be read: {error.strerror}.") from None
    kind = "application/json" if document.lstrip()[:1] == b"{" else "application/yaml"
    with Api(url, project) as api:
        taken = api.upload(f"{_PATH}/import", document, kind, flow_id=flow)
        if publish:
            taken |= _published(api, taken["flow"]["id"])
        if json:
            as_json(taken)
            return
        _tell_flow(api, taken["flow"])
        if taken["faults"]:
            tell(f"To be mended before it can be published:\n{faults(taken['faults'])}")


@app.command()
@explained
def export(
    flow_id: FlowId,
    yaml: Annotated[bool, typer.Option("--yaml", help="YAML instead of JSON.")] = False,
    version: Annotated[str, typer.Option(help="A version's id; else the draft.")] = "",
    out: Annotated[str, typer.Option(help="The file to write; else stdout.")] = "",
    url: Url = "",
    project: Project = "",
) -> None:
    """Write a flow's draft, or one of its versions, as a document that import takes."""
    from cli.api import Api

    with Api(url, project) as api:
        document = api.download(f"{_PATH}/{flow_id}/export", format="yaml" if yaml else "json", version_id=version)
    if out:
        Path(out).write_bytes(document)
        tell(f"Wrote {out}.")
    else:
        sys.stdout.buffer.write(document)


@app.command()
@explained
def publish(flow_id: FlowId, url: Url = "", project: Project = "", json: AsJson = False) -> None:
    """Make the draft the live version and switch the flow on."""
    from cli.api import Api

    with Api(url, project) as api:
        made = _published(api, flow_id)
        if json:
            as_json(made)
        else:
            _tell_flow(api, made["flow"])


@app.command()
@explained
def enable(flow_id: FlowId, url: Url = "", project: Project = "", json: AsJson = False) -> None:
    """Switch a published flow on."""
    _switch(flow_id, "enable", url, project, json)


@app.command()
@explained
def disable(flow_id: FlowId, url: Url = "", project: Project = "", json: AsJson = False) -> None:
    """Switch a flow off: its webhooks are refused with 409 from then on."""
    _switch(flow_id, "disable", url, project, json)


@app.command()
@explained
def delete(
    flow_id: FlowId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = "",
    project: Project = "",
) -> None:
    """Delete a flow. Its webhooks are gone; its runs stay."""
    from cli.api import Api

    with Api(url, project) as api:
        if not yes:
            name = api.get(f"{_PATH}/{flow_id}")["name"]
            typer.confirm(f"Delete flow {name!r} with all its versions?", abort=True, err=True)
        api.send("DELETE", f"{_PATH}/{flow_id}")
    tell(f"Deleted flow {flow_id}.")


def _switch(flow_id: str, to: str, url: str, project: str, json: bool) -> None:
    from cli.api import Api

    with Api(url, project) as api:
        flow = api.send("POST", f"{_PATH}/{flow_id}/{to}")
        if json:
            as_json(flow)
        else:
            _tell_flow(api, flow)


def _published(api: Api, flow_id: str) -> Record:
    return api.send("POST", f"{_PATH}/{flow_id}/publish", {})


def _tell_flow(api: Api, flow: Record) -> None:
    version = f"version {flow['published_version_number']}" if flow["published_version_id"] else "never published"
    tell(f"{flow['name']} ({flow['id']}): {flow['state']}, {version}, draft at revision {flow['draft_revision']}")
    if flow["failure"]:
        tell(f"  {flow['failure']}")
    if flow["state"] == "enabled":
        tell(f"  webhook: {api.url}/api/v1/webhooks/{flow['id']}")
