"""Migrations run once, in order, all or none; data of a newer version stops the start."""

import asyncio
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError

from chassis.database import Database
from chassis.errors import StartRefused
from chassis.migrations import ensure_chassis, migrate

_FIRST = """
from alembic import op
revision = "0001"
down_revision = None

def upgrade():
    op.execute('''
        CREATE TABLE sample.thing (id int PRIMARY KEY, name text);
        INSERT INTO sample.thing VALUES (1, 'a''b');
        CREATE FUNCTION sample.two_v1() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1::int + 1; END $$;
    ''')
"""

_SECOND = """
from alembic import op
revision = "0002"
down_revision = "0001"

def upgrade():
    op.execute("ALTER TABLE sample.thing ADD COLUMN at bigint")
    op.execute("{then}")
"""


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    (tmp_path / "0001_things.py").write_text(_FIRST)
    return tmp_path


async def test_a_new_database_gets_every_revision(database: Database, versions: Path) -> None:
    (versions / "0002_at.py").write_text(_SECOND.format(then="UPDATE sample.thing SET at = sample.two_v1()"))
    await migrate(database.url, "sample", versions)
    row = await database.fetchrow("SELECT id, name, at FROM sample.thing")
    assert row is not None
    assert tuple(row) == (1, "a'b", 2)
    assert await database.fetchval("SELECT version_num FROM sample.schema_version") == "0002"


async def test_an_older_database_gets_what_is_missing(database: Database, versions: Path) -> None:
    await migrate(database.url, "sample", versions)
    (versions / "0002_at.py").write_text(_SECOND.format(then="SELECT 1"))
    await migrate(database.url, "sample", versions)
    assert await database.fetchval("SELECT version_num FROM sample.schema_version") == "0002"


async def test_a_revision_that_fails_leaves_nothing_behind(database: Database, versions: Path) -> None:
    (versions / "0002_at.py").write_text(_SECOND.format(then="SELECT 1 / 0"))
    with pytest.raises((asyncpg.PostgresError, DBAPIError)):
        await migrate(database.url, "sample", versions)
    assert await database.fetchval("SELECT to_regclass('sample.thing')") is None


async def test_processes_that_start_together_migrate_once(database: Database, versions: Path) -> None:
    await asyncio.gather(*(migrate(database.url, "sample", versions) for _ in range(5)))
    assert await database.fetchval("SELECT count(*) FROM sample.thing") == 1


async def test_data_of_a_newer_version_is_refused_untouched(database: Database, versions: Path) -> None:
    await migrate(database.url, "sample", versions)
    await database.execute("UPDATE sample.schema_version SET version_num = '0009'")
    with pytest.raises(StartRefused, match=r"newer version of Millrace .its revision is 0009"):
        await migrate(database.url, "sample", versions)


async def test_a_misnamed_file_is_refused(database: Database, versions: Path) -> None:
    (versions / "0003_gap.py").write_text("")
    with pytest.raises(StartRefused, match="migration 2 is called 0002_<what>"):
        await migrate(database.url, "sample", versions)


async def test_with_nothing_to_do_alembic_and_sqlalchemy_are_not_even_imported(
    database: Database, versions: Path
) -> None:
    await migrate(database.url, "sample", versions)
    asks = (
        "import asyncio, sys, pathlib; from chassis.migrations import migrate;"
        f"asyncio.run(migrate({database.url!r}, 'sample', pathlib.Path({str(versions)!r})));"
        "print('alembic' in sys.modules, 'sqlalchemy' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", asks], check=True, capture_output=True, text=True)
    assert said.stdout.split() == ["False", "False"]


async def test_the_tables_of_the_log_are_made_once_whoever_comes_first(database: Database) -> None:
    await asyncio.gather(*(ensure_chassis(database.url) for _ in range(5)))
    assert await database.fetchval("SELECT count(*) FROM log.schema_version") == 1
