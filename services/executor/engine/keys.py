"""Idempotency keys and jitter: what looks random but must come out the same after any recovery.

Decides: how a key is made of (run, run attempt, step, loop indices, n) (I4), and the jitter of a retry.
Leaves: when n grows to work.py.
A step's id is unique in its flow, so it stands for the step's path. A key is 32 hexadecimal digits: short enough for
every service known to limit the length of such keys.
"""

from __future__ import annotations

from hashlib import blake2b

from services.executor.engine.journal import Indices


def idempotency_key(run_id: bytes, run_attempt: int, step_id: str, indices: Indices, n: int) -> str:
    """The key of one effect. The same position with the same n has the same key for ever."""
    return _digest(run_id, f"key/{run_attempt}/{step_id}/{indices}/{n}").hex()


def jitter(run_id: bytes, run_attempt: int, step_id: str, indices: Indices, attempt: int) -> float:
    """A number in [-1, 1) that spreads retries of many runs, the same at every replay."""
    digest = _digest(run_id, f"jitter/{run_attempt}/{step_id}/{indices}/{attempt}")
    return int.from_bytes(digest[:8], "big") / 2**63 - 1.0


def _digest(run_id: bytes, text: str) -> bytes:
    return blake2b(run_id + text.encode(), digest_size=16).digest()
