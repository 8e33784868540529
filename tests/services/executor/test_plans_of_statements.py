"""Hot statements use the index that is named for them, and touch no more partitions than they must.

Measured, not guessed: each statement is executed often enough for PostgreSQL to settle on a plan, functions included,
and its counters tell which indexes were scanned and whether any table was read from end to end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import pytest_asyncio

from chassis.database import Database
from chassis.ids import new_text_id, timestamp_ms
from chassis.migrations import migrate
from services.executor.postgres_store import PostgresStore
from services.executor.runs.run_store import RunStore
from services.executor.store import Claim, FlushBatch, Position, RunStatus
from tests.contracts.executor_stores import KEY, TOPIC, ended, later, move, new_run

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIMES = 8
"""Executions of a statement; after five PostgreSQL may choose a plan without looking at the arguments."""

# 60,000 ended runs of 20 projects in the partitions of last week and this one, and 20,000 live ones.
FILL = """
    CREATE FUNCTION pg_temp.run_id(at timestamptz, i int) RETURNS uuid LANGUAGE sql AS $$
        SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint + i), 12, '0') || '7000' || '8'
                || substr(md5(i::text), 1, 15))::uuid $$;
    CREATE FUNCTION pg_temp.project(i int) RETURNS uuid LANGUAGE sql AS $$
        SELECT ('0197c1f0-0000-7000-8000-' || lpad((i % 20)::text, 12, '0'))::uuid $$;
    INSERT INTO executor.run
    SELECT pg_temp.run_id(date_trunc('week', now(), 'UTC') + (w - 1) * interval '7 days' + interval '1 hour', i),
           pg_temp.project(i), pg_temp.project(i % 7 + 1), pg_temp.project(0), 'hook', false,
           CASE WHEN i % 1500 = 0 THEN 6 ELSE 5 END, 1, 2, 3, NULL
      FROM generate_series(1, 30000) i, generate_series(0, 1) w;
    INSERT INTO executor.journal SELECT run_id, 0, 'x' FROM executor.run;
    INSERT INTO executor.run_live
    SELECT pg_temp.run_id(now(), i), pg_temp.project(i), pg_temp.project(1), pg_temp.project(0), 'hook', false, '',
           CASE WHEN i % 10 = 0 THEN 1 ELSE 2 END, CASE WHEN i % 10 = 0 THEN NULL ELSE i % 400 END, NULL, 0, 1
      FROM generate_series(1, 20000) i;
    INSERT INTO executor.journal SELECT run_id, 0, 'x' FROM executor.run_live;
    INSERT INTO executor.incarnation (name, alive) SELECT 'old', false FROM generate_series(1, 5000);
    INSERT INTO executor.position SELECT 'other ' || i, 0, 'x', 0 FROM generate_series(1, 5000) i;
    INSERT INTO executor.store_entry SELECT pg_temp.project(i), '', i::text, 'x' FROM generate_series(1, 20000) i;
"""
# Scans so far, of indexes (a partition's under the name of the whole) and of whole tables.
SCANS = """
    SELECT coalesce(p.relname, c.relname) AS index, s.relname AS table, s.idx_scan AS scans
      FROM pg_stat_user_indexes s JOIN pg_class c ON c.oid = s.indexrelid
      LEFT JOIN pg_inherits i ON i.inhrelid = s.indexrelid LEFT JOIN pg_class p ON p.oid = i.inhparent
     WHERE s.schemaname = 'executor'
    UNION ALL
    SELECT 'from end to end', relname, seq_scan FROM pg_stat_user_tables WHERE schemaname = 'executor'"""


@dataclass
class Filled:
    """A filled database behind one connection, whose counters can be read."""

    database: Database

    async def _scans(self) -> dict[tuple[str, str], int]:
        await self.database.execute("SELECT pg_stat_force_next_flush()")
        return {(row["index"], row["table"]): row["scans"] for row in await self.database.fetch(SCANS)}

    async def read(self) -> int:
        """How many rows of runs were fetched so far."""
        await self.database.execute("SELECT pg_stat_force_next_flush()")
        statement = "SELECT sum(idx_tup_fetch + seq_tup_read) FROM pg_stat_user_tables WHERE relname LIKE 'run%'"
        return int(await self.database.fetchval(statement))

    async def touched(self, work: Callable[[], Awaitable[object]]) -> dict[str, set[str]]:
        """Index → tables and partitions in which it was used while `work` was done several times."""
        for _ in range(TIMES):
            await work()
        before = await self._scans()
        await work()
        found: dict[str, set[str]] = {}
        for (index, table), scans in (await self._scans()).items():
            if scans > before[index, table]:
                found.setdefault(index, set()).add(table)
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def filled(new_database_url: Callable[[], str]) -> AsyncIterator[Filled]:
    url = new_database_url()
    await migrate(url, "executor")
    async with Database(url, "executor", pool_size=1) as database:
        await database.execute(FILL)
        await database.execute("ANALYZE")
        yield Filled(database)


async def newest(filled: Filled) -> tuple[UUID, str]:
    """The newest ended run and its project."""
    row = await filled.database.fetchrow("SELECT run_id, project_id FROM executor.run ORDER BY run_id DESC LIMIT 1")
    assert row is not None
    return row["run_id"], str(row["project_id"])


def week(run_id: UUID) -> str:
    """The partition of a run is named after the Monday of its week."""
    day = datetime.fromtimestamp(timestamp_ms(run_id) / 1000, UTC)
    return f"{day - timedelta(days=day.weekday()):%Y%m%d}"


async def test_the_first_page_of_runs(filled: Filled) -> None:
    _, project_id = await newest(filled)
    touched = await filled.touched(lambda: RunStore(filled.database).page(project_id, before=None, limit=50))
    assert touched.keys() == {"run_live_by_project", "run_by_project"}


async def test_a_later_page_of_runs(filled: Filled) -> None:
    run_id, project_id = await newest(filled)
    touched = await filled.touched(lambda: RunStore(filled.database).page(project_id, before=run_id, limit=50))
    assert touched.keys() == {"run_live_by_project", "run_by_project"}
    newer = {table for table in touched["run_by_project"] if table > f"run_{week(run_id)}"}
    assert newer == set(), "partitions newer than the page are pruned"


async def test_a_page_of_a_project_that_was_quiet_for_long_reads_no_runs_of_others(filled: Filled) -> None:
    """PostgreSQL walked the primary key from the newest run, expecting to meet the project's soon."""
    quiet = new_text_id()
    statement = """UPDATE executor.run SET project_id = $1
        WHERE run_id IN (SELECT run_id FROM executor.run ORDER BY run_id LIMIT 3)"""
    await filled.database.execute(statement, quiet)
    store = RunStore(filled.database)
    before = await filled.read()
    assert len(await store.page(quiet, before=None, limit=50)) == 3
    assert await filled.read() - before < 50


async def test_a_page_of_one_flows_runs(filled: Filled) -> None:
    row = await filled.database.fetchrow("SELECT project_id, flow_id FROM executor.run ORDER BY run_id DESC LIMIT 1")
    assert row is not None
    store = RunStore(filled.database)
    touched = await filled.touched(
        lambda: store.page(str(row["project_id"]), before=None, limit=50, flow_id=str(row["flow_id"]))
    )
    assert touched.keys() == {"run_live_by_project", "run_by_flow"}


async def test_a_page_of_failed_runs_reads_none_that_succeeded(filled: Filled) -> None:
    project_id = str(await filled.database.fetchval("SELECT project_id FROM executor.run WHERE status = 6 LIMIT 1"))
    failed = [RunStatus.FAILED, RunStatus.TIMED_OUT]
    touched = await filled.touched(
        lambda: RunStore(filled.database).page(project_id, before=None, limit=50, statuses=failed)
    )
    assert "run_failed" in touched
    assert "run_by_project" not in touched
    assert "from end to end" not in touched


async def test_one_run_and_its_journal_open_one_partition(filled: Filled) -> None:
    run_id, _ = await newest(filled)
    store = RunStore(filled.database)
    touched = await filled.touched(lambda: store.get(run_id))
    assert touched.keys() == {"run_pkey", "run_live_pkey"}
    assert len(touched["run_pkey"]) == 1
    touched = await filled.touched(lambda: store.chunks(run_id))
    assert touched.keys() == {"journal_pkey"}
    assert len(touched["journal_pkey"]) == 1


async def test_a_claim_probes_the_queue_of_each_project(filled: Filled) -> None:
    store = PostgresStore(filled.database)
    epoch = await store.begin_incarnation("tester", sole=False)
    number = 0

    async def claim() -> None:
        nonlocal number
        number += 1
        assert await store.claim(epoch, Claim(number, False, 5, 2))

    touched = await filled.touched(claim)
    assert "from end to end" not in touched
    assert {"run_live_queued", "run_live_pkey", "incarnation_pkey", "journal_pkey"} == touched.keys()


async def test_a_claim_asked_for_again_looks_at_its_owners_runs_alone(filled: Filled) -> None:
    store = PostgresStore(filled.database)
    epoch = await store.begin_incarnation("tester", sole=False)
    await store.claim(epoch, Claim(1, False, 5, 2))
    touched = await filled.touched(lambda: store.claim(epoch, Claim(1, True, 5, 2)))
    assert touched.keys() == {"run_live_by_owner", "incarnation_pkey", "journal_pkey"}


async def test_a_flush_looks_everything_up_by_key(filled: Filled) -> None:
    store = PostgresStore(filled.database)
    epoch = await store.begin_incarnation("tester", sole=False)
    await store.start_position(TOPIC, 0, None, Position("log-1", 0))
    number = 0
    before = new_run()

    async def flush() -> None:
        nonlocal number, before
        number += 1
        run, at_once = new_run(), new_run(end=ended())
        runs = [run, at_once] if number == 1 else [run, at_once, later(before, 1, b"chunk 1", ended())]
        values = {KEY: b"1", KEY._replace(key="none"): None}
        await store.flush(FlushBatch(epoch, number, [move(number - 1, number)], runs, values))
        before = run

    touched = await filled.touched(flush)
    assert "from end to end" not in touched
    assert {"incarnation_pkey", "position_pkey", "run_live_pkey", "store_entry_pkey"} <= touched.keys()
    assert len(touched.get("journal_pkey", set())) <= 1


async def test_a_take_over_finds_the_runs_of_the_dead(filled: Filled) -> None:
    store = PostgresStore(filled.database)

    async def take_over() -> None:
        epoch = await store.begin_incarnation("dying", sole=False)
        await store.flush(FlushBatch(epoch, 1, runs=[new_run()]))
        assert await store.take_over(epoch, 1) == 1

    touched = await filled.touched(take_over)
    assert "from end to end" not in touched
    assert "run_live_by_owner" in touched
