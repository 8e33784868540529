"""What a run is told about where it runs: `run.url`, `run.environment`, and how its payload is opened.

Decides: the address of a run, and when it is a test. Leaves: what expressions see of it to engine/run.py.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from chassis.documents import unpack
from services.executor.engine.run import Surroundings
from services.executor.store import RunIdentity

SurroundingsOf = Callable[[RunIdentity], Surroundings]


def surroundings_at(public_url: str) -> SurroundingsOf:
    """The surroundings of runs of the installation at `public_url`."""
    base = public_url.rstrip("/")

    def surroundings(run: RunIdentity) -> Surroundings:
        return Surroundings(
            unpack=unpack,
            environment="test" if run.test else "production",
            url=f"{base}/runs/{UUID(bytes=run.run_id)}",
        )

    return surroundings
