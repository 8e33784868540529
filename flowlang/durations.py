"""Durations as texts: `500ms`, `1s`, `2.5m`, `1h`, `7d`.

Decides: how they are written. Leaves: what bounds a field has to validate.py.
"""

from __future__ import annotations

import re

_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)(ms|s|m|h|d)", re.ASCII)
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def parse_duration_ms(text: str) -> int:
    """The duration in milliseconds. Raises ValueError with a sentence that says how to write it."""
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ValueError(f"`{text}` is no duration; write a number and a unit, like 500ms, 30s, 5m, 1h or 7d.")
    return round(float(match[1]) * _UNIT_MS[match[2]])
