"""Statements on `webhooks.trigger_event`: deliveries that were refused or simulated.

Decides: that many are written by one statement. Leaves: which are kept, and how long, to deliveries.py.
"""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from chassis.database import Database

_INSERT = """
INSERT INTO webhooks.trigger_event
    (id, project_id, flow_id, trigger_id, kind, status, reason, method, headers, body, remote_address)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::int[], $7::text[], $8::text[],
                     $9::bytea[], $10::bytea[], $11::text[])
"""

# The id carries the time, so the primary key is the index of this range.
_TRIM = """
DELETE FROM webhooks.trigger_event WHERE id IN (
    SELECT id FROM webhooks.trigger_event WHERE id < $1 ORDER BY id LIMIT $2)
"""


class Delivery(NamedTuple):
    """One stored delivery, in the order of the columns."""

    id: UUID
    project_id: UUID
    flow_id: UUID
    trigger_id: str
    kind: str
    status: int
    reason: str
    method: str
    headers: bytes
    body: bytes
    remote_address: str


class DeliveryStore:
    """The table of refused and simulated deliveries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, deliveries: Sequence[Delivery]) -> None:
        """Store deliveries, all or none."""
        await self._database.execute(_INSERT, *(list(column) for column in zip(*deliveries, strict=True)))

    async def trim(self, *, before: UUID, limit: int) -> int:
        """Forget deliveries older than an id, at most `limit`; return how many there were."""
        tag = await self._database.execute(_TRIM, before, limit)
        return int(tag.rpartition(" ")[2])
