"""What an operator can set for flows.

Decides: names, defaults and bounds. Leaves: waiting to settling.py.
"""

from __future__ import annotations

from pydantic import Field

from chassis.settings import ServiceSettings


class FlowsSettings(ServiceSettings):
    """Settings of flows; environment names begin with MILLRACE_."""

    publish_wait_s: float = Field(default=10.0, gt=0, le=60)
    """How long publish, enable and disable wait for the consumers before they answer that it is under way."""
