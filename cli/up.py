"""What runs in embedded mode, in which process. Read this first to know what `millrace up` starts.

Decides: two Python processes. *executor* runs alone, because one interpreter cannot drive 2,000 runs a second and
answer quickly; *edge* holds everything else, whose services meet inside the process. PostgreSQL and the supervisor
stand beside them, the jails below the executor.
Leaves: starting, watching and stopping them to `supervise`; what a service opens to its `service.py`.
Nothing heavy is imported before it is needed: the supervisor imports this file, too, and must stay small.

    python -m cli.up                 # the supervisor, as `millrace up`
    python -m cli.up edge            # one of its processes; waits at the gate until PostgreSQL is ready
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.gate import GATE_VARIABLE, wait_for

if TYPE_CHECKING:
    from chassis.lifecycle import Service

SERVICES = ("auth", "flows", "webhooks", "files", "executor")
"""Every service with tables of its own, in the order in which `migrate` brings them up to date."""


def executor() -> list[Service[Any]]:
    """Runs, pieces and users' code."""
    return [_service("executor")]


def edge() -> list[Service[Any]]:
    """HTTP and everything that answers it."""
    return [_service(name) for name in ("auth", "flows", "webhooks", "files", "gateway")]


PROCESSES: Mapping[str, Callable[[], list[Service[Any]]]] = {"edge": edge, "executor": executor}
"""Process → what runs in it. They are started together and stopped in this order."""


def _service(name: str) -> Service[Any]:
    """One service with its settings, ready to run. Raises: KeyError for a name that there is none of."""
    from chassis.lifecycle import Service

    match name:
        case "auth":
            from services.auth.service import build as auth
            from services.auth.settings import AuthSettings

            return Service(auth, AuthSettings)
        case "flows":
            from services.flows.service import build as flows
            from services.flows.settings import FlowsSettings

            return Service(flows, FlowsSettings)
        case "webhooks":
            from services.webhooks.service import build as webhooks
            from services.webhooks.settings import WebhooksSettings

            return Service(webhooks, WebhooksSettings)
        case "executor":
            from services.executor.service import build as runs
            from services.executor.settings import ExecutorSettings

            return Service(runs, ExecutorSettings)
        case "files":
            from services.files.service import build as files
            from services.files.settings import FilesSettings

            return Service(files, FilesSettings)
        case "gateway":
            from gateway.service import build as gateway
            from gateway.settings import GatewaySettings

            return Service(gateway, GatewaySettings)
    raise KeyError(name)


def run_alone(name: str) -> None:
    """Runs one service, or the gateway, as this process. Raises: KeyError for a name that there is none of."""
    from chassis.lifecycle import run_services

    run_services([_service(name)])


def run_process(name: str) -> None:
    """Runs one of `PROCESSES` below the supervisor: imports first, waits for the gate, then serves."""
    # structlog imports rich wherever it can, to paint stacks that we print plainly: a tenth of the start, 7 MiB.
    sys.modules["rich"] = None  # type: ignore[assignment]  # Python's own way to say that there is none
    services = PROCESSES[name]()
    wait_for(Path(os.environ[GATE_VARIABLE]))
    from chassis.lifecycle import run_services

    run_services(services)


def main() -> None:
    """Be the supervisor, or the process that the argument names."""
    if len(sys.argv) > 1:
        run_process(sys.argv[1])
        return
    from cli.supervise import supervise

    sys.exit(supervise())


if __name__ == "__main__":
    main()
