"""Statements on `webhooks.idempotency`: which run a sender's duplicate key belongs to.

Decides: that insert or find is one statement for all keys. Leaves: what a duplicate gets to idempotency.py.
"""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from chassis.database import Database

# One statement for all keyed events that gathered. Rows come back whether they were there or not; an expired row is
# taken over as if it were new. Sorted by the caller, so that two replicas lock rows in one order.
_INSERT_OR_FIND = """
INSERT INTO webhooks.idempotency AS kept (flow_id, key_hash, run_id, expires_at_ms)
SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::uuid[], $4::bigint[])
ON CONFLICT (flow_id, key_hash) DO UPDATE SET
    run_id = CASE WHEN kept.expires_at_ms > $5 THEN kept.run_id ELSE excluded.run_id END,
    published = kept.published AND kept.expires_at_ms > $5,
    expires_at_ms = CASE WHEN kept.expires_at_ms > $5 THEN kept.expires_at_ms ELSE excluded.expires_at_ms END
RETURNING flow_id, key_hash, run_id, published
"""

# The run id guards against a key that expired and was taken over meanwhile.
_MARK_PUBLISHED = """
UPDATE webhooks.idempotency AS kept SET published = true
  FROM unnest($1::uuid[], $2::bytea[], $3::uuid[]) AS done (flow_id, key_hash, run_id)
 WHERE kept.flow_id = done.flow_id AND kept.key_hash = done.key_hash AND kept.run_id = done.run_id
"""

# Index idempotency_by_expiry. Bounded, so that a trim never holds many locks.
_TRIM = """
DELETE FROM webhooks.idempotency WHERE (flow_id, key_hash) IN (
    SELECT flow_id, key_hash FROM webhooks.idempotency WHERE expires_at_ms <= $1 ORDER BY expires_at_ms LIMIT $2)
"""


class Key(NamedTuple):
    """A sender's duplicate key within one flow."""

    flow_id: UUID
    key_hash: bytes


class Found(NamedTuple):
    """What is stored under a key."""

    run_id: UUID
    published: bool


class IdempotencyStore:
    """The table of duplicate keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert_or_find(
        self, keys: Sequence[tuple[Key, UUID]], *, now_ms: int, expires_at_ms: int
    ) -> dict[Key, Found]:
        """Store each key with its run id unless it is there already; return what is stored now. Each key once."""
        ordered = sorted(keys)
        rows = await self._database.fetch(
            _INSERT_OR_FIND,
            [key.flow_id for key, _ in ordered],
            [key.key_hash for key, _ in ordered],
            [run_id for _, run_id in ordered],
            [expires_at_ms] * len(ordered),
            now_ms,
        )
        return {
            Key(row["flow_id"], row["key_hash"]): Found(UUID(int=row["run_id"].int), row["published"]) for row in rows
        }

    async def mark_published(self, keys: Sequence[tuple[Key, UUID]]) -> None:
        """Say that the runs of these keys are in the log."""
        ordered = sorted(keys)
        await self._database.execute(
            _MARK_PUBLISHED,
            [key.flow_id for key, _ in ordered],
            [key.key_hash for key, _ in ordered],
            [run_id for _, run_id in ordered],
        )

    async def trim(self, *, now_ms: int, limit: int) -> int:
        """Forget keys that expired, at most `limit`; return how many there were."""
        tag = await self._database.execute(_TRIM, now_ms, limit)
        return int(tag.rpartition(" ")[2])
