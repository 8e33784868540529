"""Users' code and expressions, run in V8 inside walled-in processes.

Start reading at pool.py (which jail runs what), then jail.py (a jail's life), walls.py (what it may do), realm.js
(what code sees).

The names below are looked up when first used: a jail imports this package too, and must not carry the executor's half
in its memory.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.executor.sandbox.calls import CodeResult, CodeUnit, SourceKind, SourceProblem
    from services.executor.sandbox.errors import (
        CodeThrew,
        CodeTimedOut,
        MemoryExceeded,
        OutputInvalid,
        SandboxError,
        SandboxUnavailable,
    )
    from services.executor.sandbox.pool import Sandbox
    from services.executor.sandbox.settings import SandboxSettings

__all__ = [
    "CodeResult",
    "CodeThrew",
    "CodeTimedOut",
    "CodeUnit",
    "MemoryExceeded",
    "OutputInvalid",
    "Sandbox",
    "SandboxError",
    "SandboxSettings",
    "SandboxUnavailable",
    "SourceKind",
    "SourceProblem",
]

_HOMES = {
    "calls": ("CodeResult", "CodeUnit", "SourceKind", "SourceProblem"),
    "errors": ("CodeThrew", "CodeTimedOut", "MemoryExceeded", "OutputInvalid", "SandboxError", "SandboxUnavailable"),
    "pool": ("Sandbox",),
    "settings": ("SandboxSettings",),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(name)
