"""Telling others of a fact, in the transaction of the fact (I9).

Decides: where the log lives in the same database, the record is appended to it at once; elsewhere it is written to the
service's `outbox` table, and `relay` publishes it, oldest first, at least once, then forgets it.
Leaves: what the records mean, and telling one from its repetition (an id in the record), to consumers.
Holds: a record is published if its transaction committed, never if not. Records of transactions that waited for each
other (one row's lock) keep their order, if the fact is written before its record. Of all replicas one relays at a time.
"""

import asyncio
import zlib
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

import structlog

from chassis.database import Database
from chassis.errors import Unavailable
from chassis.log import Log, OutRecord
from chassis.log.port import check_sizes
from chassis.log.postgres import PostgresLog
from chassis.migrations import run_locked

if TYPE_CHECKING:
    from chassis.log.postgres import AnyConnection

_BATCH = 500
_SOON_S = 0.01
_IDLE_S = 0.5
_AWAY_S = 1.0

_DDL = """
CREATE SCHEMA IF NOT EXISTS "{schema}";
CREATE TABLE IF NOT EXISTS "{schema}".outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic text NOT NULL,
    key bytea NOT NULL,
    value bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
ALTER TABLE "{schema}".outbox ALTER COLUMN value SET STORAGE EXTERNAL;
"""
_ADD = (
    'INSERT INTO "{schema}".outbox (topic, key, value) SELECT $1, k, v FROM unnest($2::bytea[], $3::bytea[]) AS r(k, v)'
)
_TAKE_TURN = "SELECT pg_try_advisory_xact_lock($1::int, 1)"
_OLDEST = 'SELECT id, topic, key, value FROM "{schema}".outbox ORDER BY id LIMIT $1'
_FORGET = 'DELETE FROM "{schema}".outbox WHERE id = ANY($1::bigint[])'

_log = structlog.get_logger(__name__)


class Outbox:
    """The outbox of one service. Open it as an async context; run `relay` among the service's loops."""

    def __init__(self, database: Database, log: Log, schema: str, *, direct_url: str = "") -> None:
        self._database = database
        self._log = log
        self._schema = schema
        self._direct_url = direct_url or database.url
        self._turn = zlib.crc32(f"outbox {schema}".encode()) & 0x7FFFFFFF
        self._added = asyncio.Event()

    async def __aenter__(self) -> Self:
        if self._same_database is None:
            await run_locked(self._direct_url, _DDL.format(schema=self._schema))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def add(self, connection: "AnyConnection", topic: str, key: bytes, value: bytes) -> None:
        """Tell of a fact in its transaction. Raises: TooLarge."""
        await self.add_all(connection, topic, [OutRecord(key, value)])

    async def add_all(self, connection: "AnyConnection", topic: str, records: Sequence[OutRecord]) -> None:
        """Tell of several facts in their transaction, in this order. Raises: TooLarge.

        Call it last before the commit, several topics in the order of their names: with the log in PostgreSQL the topic
        is locked for other writers until then.
        """
        log = self._same_database
        if log is not None:  # I9: either way it is one commit with the fact
            await log.append_in(connection, topic, records)
            return
        check_sizes(topic, records)
        keys, values = [record.key for record in records], [record.value for record in records]
        await connection.execute(_ADD.format(schema=self._schema), topic, keys, values)
        self._added.set()

    async def relay(self) -> None:
        """Publish what is in the outbox, for ever. With the log in this database there is nothing to do."""
        if self._same_database is not None:
            await asyncio.Event().wait()
        pause = _SOON_S
        while True:
            try:
                relayed = await self._relay_some()
            except Unavailable as away:
                _log.warning("outbox_waits", schema=self._schema, message=away.message)
                await asyncio.sleep(_AWAY_S)
                continue
            if relayed:
                pause = _SOON_S
                continue
            # The hint comes before its commit: look again soon, then less and less often.
            if pause >= _IDLE_S:
                try:
                    async with asyncio.timeout(_IDLE_S):
                        await self._added.wait()
                    self._added.clear()
                    pause = _SOON_S
                except TimeoutError:
                    continue
            await asyncio.sleep(pause)
            pause = min(pause * 2, _IDLE_S)

    async def _relay_some(self) -> int:
        """Publish and forget one batch; both or the publishing again. Returns how many."""
        async with self._database.transaction() as connection:
            if not await connection.fetchval(_TAKE_TURN, self._turn):
                return 0
            rows = await connection.fetch(_OLDEST.format(schema=self._schema), _BATCH)
            by_topic: dict[str, list[OutRecord]] = {}
            for row in rows:
                by_topic.setdefault(row["topic"], []).append(OutRecord(row["key"], row["value"]))
            for topic, records in by_topic.items():
                await self._log.publish(topic, records)
            if rows:
                await connection.execute(_FORGET.format(schema=self._schema), [row["id"] for row in rows])
        return len(rows)

    @property
    def _same_database(self) -> PostgresLog | None:
        log = self._log
        return log if isinstance(log, PostgresLog) and log.database_url == self._database.url else None
