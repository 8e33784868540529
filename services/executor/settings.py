"""What an operator can set for the executor.

Decides: names, defaults and bounds. Leaves: limits of one run to engine/limits.py.
"""

from __future__ import annotations

import socket

from pydantic import Field

from chassis.settings import ServiceSettings
from services.executor.sandbox.settings import SandboxSettings


class ExecutorSettings(ServiceSettings):
    """Settings of the executor; environment names begin with MILLRACE_."""

    executor_name: str = Field(default_factory=socket.gethostname)
    """How this executor is called in its table and its log lines."""
    sole_executor: bool = False
    """True when no other executor can be alive (embedded mode): the runs of the one before are taken up at once."""
    max_active_runs: int = Field(default=10_000, ge=1)
    """Runs at work at once in this process; further ones are stored as queued."""
    public_url: str = "http://127.0.0.1:8080"
    """Where people and other systems reach this installation; flows may call its webhooks."""
    egress_allow: list[str] = Field(default_factory=list)
    """Private addresses that flows may call, as `host:port` or `10.0.0.0/8` or `10.0.0.0/8:443`; JSON."""
    weeks_ahead: int = Field(default=4, ge=1, le=52)
    """Weekly partitions kept ready."""
    trace_slow_s: float = Field(default=10.0, ge=0)
    """A run that took longer is always traced, in seconds; so is one that failed. Only with `otlp_endpoint`."""
    trace_share: float = Field(default=0.01, ge=0, le=1)
    """Share of all other runs that is traced, from 0 to 1."""
    sandbox: SandboxSettings = Field(default_factory=SandboxSettings)
    """Limits of jails; `MILLRACE_SANDBOX__MAX_JAILS=8` and so on."""
