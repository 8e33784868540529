"""What is wrong with a document, where, and what to do.

Decides: the shape of a fault. Leaves: finding them to validate.py and its helpers.
"""

from __future__ import annotations

import msgspec


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to mend. `step_id` names the step or trigger (empty: the flow), `field` the place inside it."""

    step_id: str = ""
    field: str = ""
    message: str
    reason: str
