"""How the process and its services are, as probes read it.

Decides: names of fields. Leaves: when a process is ready to readiness.py.
"""

from typing import Literal

from pydantic import Field

from gateway.schemas.common import Model, example


class Alive(Model):
    """The process answers."""

    model_config = example({"status": "ok"})
    status: Literal["ok"]


class Ready(Model):
    """Whether each service is ready."""

    model_config = example({"status": "ready", "services": {"auth": "serving", "flows": "serving"}})
    status: Literal["ready", "not_ready"]
    services: dict[str, str] = Field(description="Service → `serving`, `not_serving` or `away`.")
