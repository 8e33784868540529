"""`millrace run …`: what happened, and what is happening.

Decides: how runs and steps read as lines. Leaves: the calls to api.py, the live view to live.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.printing import AsJson, Project, Url, as_json, explained, table, tell, value, when

if TYPE_CHECKING:
    from cli.api import Record

app = typer.Typer(no_args_is_help=True, help="Runs: list them, look into one, watch them live.")
_PATH = "/api/v1/runs"

Flow = Annotated[str, typer.Option(help="Only runs of this flow.")]


@app.command("list")
@explained
def list_(
    flow: Flow = "",
    status: Annotated[list[str] | None, typer.Option(help="Only runs in this state; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most runs to list.")] = 50,
    url: Url = "",
    project: Project = "",
    json: AsJson = False,
) -> None:
    """List runs, newest first."""
    from cli.api import Api

    with Api(url, project) as api:
        found = list(api.all_of(_PATH, "runs", limit, flow_id=flow, status=status))
    if json:
        as_json(found)
        return
    rows = [
        (run["id"], run["flow_id"], run["status"], when(run["started_at"]), took(run), str(run["steps_finished"]))
        for run in found
    ]
    table(("ID", "FLOW", "STATUS", "STARTED", "TOOK", "STEPS"), rows, "There are no runs.")


@app.command()
@explained
def show(
    run_id: Annotated[str, typer.Argument(metavar="ID", help="The run's id.")],
    url: Url = "",
    project: Project = "",
    json: AsJson = False,
) -> None:
    """Show one run: each step with its input, its output, and what its code printed."""
    from cli.api import Api

    with Api(url, project) as api:
        found = api.get(f"{_PATH}/{run_id}")
    if json:
        as_json(found)
        return
    run = found["run"]
    tell(f"Run {run['id']} of flow {run['flow_id']}: {run['status']}")
    tell(f"  started {when(run['started_at'])}, took {took(run)}")
    if run["error"]:
        tell(f"  {failure(run['error'])}")
    tell(f"trigger {run['trigger_id']}\n  output: {value(found['trigger_output'], '    ')}")
    for step in found["steps"]:
        tell(step_text(step))
    if found["steps_truncated"]:
        tell("There are more steps than can be shown.")


@app.command()
@explained
def tail(
    flow: Flow = "",
    run: Annotated[str, typer.Option(help="Only this run; ends with it, exit code 0 if it succeeded, else 5.")] = "",
    url: Url = "",
    project: Project = "",
    json: AsJson = False,
) -> None:
    """Watch runs live, until Ctrl-C. With --json a line for each thing that happened."""
    from cli.live import watch

    raise typer.Exit(watch(url, project, flow, run, as_lines=json))


def step_text(step: Record) -> str:
    """One execution of a step, with everything that is known of it."""
    lines = [step_line(step)]
    lines += [f"  {name}: {value(step[name], '    ')}" for name in ("input", "output") if step[name] is not None]
    lines += [f"  | {line}" for line in step["console"]]
    if step["error"]:
        lines.append(f"  {failure(step['error'])}")
    return "\n".join(lines)


def step_line(step: Record) -> str:
    """One execution of a step, in a line."""
    name = step["step_id"] + "".join(f"[{index}]" for index in step["indices"])
    attempt = f", attempt {step['attempt']}" if step["attempt"] > 1 else ""
    interrupted = f", interrupted {step['interruptions']} times" if step["interruptions"] else ""
    return f"step {name}: {step['status']}{attempt}{interrupted}, {took(step)}"


def failure(error: Record) -> str:
    """Why something failed."""
    where = f"step {error['step_id']}, attempt {error['attempt']}: " if error["step_id"] else ""
    return f"{where}{error['kind']}: {error['message']}"


def took(thing: dict[str, Any]) -> str:
    """How long a run or a step took."""
    if not thing["started_at"] or not thing["finished_at"]:
        return "-"
    from datetime import datetime

    seconds = (
        datetime.fromisoformat(thing["finished_at"]) - datetime.fromisoformat(thing["started_at"])
    ).total_seconds()
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
