"""Limits of a run and their defaults.

Decides: the numbers. Leaves: where each is checked to the module named beside it.
"""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """How much one run may use. Durations are milliseconds, sizes bytes."""

    step_time_ms: int = 60_000
    """Of one attempt of a step that sets no `timeout` itself (plan.py)."""
    run_time_ms: int = 600_000
    """Active time of a run; time in which all of it sleeps does not count (run.py)."""
    loop_iterations: int = 10_000
    """Items of one loop (loop.py)."""
    nesting: int = 32
    """Blocks inside each other (plan.py)."""
    document_bytes: int = 8 * 2**20
    """Input or output of one step (work.py)."""
    journal_bytes: int = 64 * 2**20
    """All entries of a run together (run.py)."""
    takeovers: int = 3
    """Take-overs at one position; this one ends the run (run.py, I4)."""


DEFAULT_LIMITS = Limits()
