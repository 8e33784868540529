"""What an operator may set about jails.

Decides: names, defaults and bounds of the limits.
Leaves: where the values come from (environment, tests) to the executor's own settings.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field


def _default_max_jails() -> int:
    return 2 * (os.cpu_count() or 1)


@dataclass(frozen=True)
class SandboxSettings:
    """Limits of the sandbox. Sizes are bytes of UTF-8 unless the name says otherwise."""

    max_jails: int = field(default_factory=_default_max_jails)
    """Jails that serve projects at the same time; the warm spare comes on top. Each holds about 45 MB."""

    heap_mib: int = 128
    """V8's own heap of lasting objects in one jail; young ones take up to 48 MiB beside it."""

    memory_mib: int = 256
    """All data of one jail beyond what it holds when idle: heap, strings and array buffers together."""

    max_output_bytes: int = 5 * 1024 * 1024
    """One call's answer. A larger one is `OutputInvalid`."""

    max_console_lines: int = 1_000
    """Console lines kept of one call; a last line says when there were more."""

    max_console_bytes: int = 64 * 1024
    """Console text kept of one call."""

    max_realms: int = 16
    """Published versions a jail keeps compiled; the least recently used one is forgotten first."""

    spill_after_ms: int = 5
    """A call that runs longer than this lets those queued behind it move to another jail."""

    start_timeout_ms: int = 15_000
    """How long a jail may take from start to raised walls."""

    first_uid: int = 61_000
    """Under root, jails run as this user id and the ones above it (as many as there are jails), each as its own."""

    allow_without_walls: bool = False
    """Run code even where the kernel offers neither Landlock nor seccomp. For development machines alone."""
