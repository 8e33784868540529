"""The gate at which the processes of embedded mode wait, imports done, until PostgreSQL is ready.

Decides: the gate is a lock on a file, which goes with the process that holds it, and costs nothing once it is open.
Leaves: when it opens to supervise.py.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

GATE_VARIABLE = "MILLRACE_GATE"
"""Environment variable with the path of the gate."""


@contextmanager
def shut(path: Path) -> Iterator[IO[str]]:
    """Keeps the gate shut while entered; closing the file earlier opens it earlier."""
    with path.open("a") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        yield gate


def wait_for(path: Path) -> None:
    """Returns once the gate is open."""
    with path.open("a") as gate:
        fcntl.flock(gate, fcntl.LOCK_SH)
