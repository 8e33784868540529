"""A lost database is one error for everybody, and mends by itself."""

import asyncio

import asyncpg
import pytest

from chassis.database import Database, connect_directly
from chassis.errors import Unavailable
from tests.backings.postgres import PostgresBacking


async def test_a_killed_server_is_unavailable_and_then_answers_again(
    postgres: PostgresBacking, database: Database
) -> None:
    assert await database.fetchval("SELECT 41 + 1") == 42
    await asyncio.to_thread(postgres.kill)
    await asyncio.sleep(0.1)
    with pytest.raises(Unavailable) as raised:
        await database.fetchval("SELECT 41 + 1")
    assert raised.value.reason == "DATABASE_AWAY"
    assert raised.value.retry_after_s
    await asyncio.to_thread(postgres.start)
    assert await database.fetchval("SELECT 41 + 1") == 42


async def test_a_connection_the_server_closed_meanwhile_is_replaced_unseen(
    postgres: PostgresBacking, database: Database
) -> None:
    assert await database.fetchval("SELECT 41 + 1") == 42
    await asyncio.to_thread(postgres.stop)
    await asyncio.to_thread(postgres.start)
    assert await database.fetchval("SELECT 41 + 1") == 42


async def test_a_server_that_is_not_there_is_said_when_opening(postgres: PostgresBacking) -> None:
    with pytest.raises(Unavailable, match="DATABASE_AWAY"):
        async with Database("postgresql://millrace@127.0.0.1:1/none"):
            pass
    with pytest.raises(Unavailable, match="DATABASE_AWAY"):
        await connect_directly("postgresql://millrace@127.0.0.1:1/none")


async def test_a_wrong_statement_stays_the_drivers_error(database: Database) -> None:
    with pytest.raises(asyncpg.PostgresSyntaxError):
        await database.fetchval("SELEC 1")
    await database.execute("CREATE TABLE one (id int PRIMARY KEY)")
    with pytest.raises(asyncpg.UniqueViolationError):
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO one VALUES (1), (1)")


async def test_a_transaction_is_all_or_nothing(database: Database) -> None:
    await database.execute("CREATE TABLE one (id int PRIMARY KEY)")
    with pytest.raises(RuntimeError):
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO one VALUES (1)")
            raise RuntimeError
    assert await database.fetchval("SELECT count(*) FROM one") == 0


async def test_services_of_one_process_share_the_connections_of_a_server(database_url: str) -> None:
    async with Database(database_url, "flows") as flows:
        async with Database(database_url, "auth") as auth:
            assert auth.pool is flows.pool
        assert await flows.fetchval("SELECT 1") == 1  # the other's end does not close ours


async def test_without_a_statement_cache_no_named_statement_stays_on_the_server(database_url: str) -> None:
    async with Database(database_url, pool_size=1, statement_cache=False) as database:
        for n in range(3):
            assert await database.fetchval("SELECT $1::int", n) == n
        async with database.acquire() as raw:
            assert await raw.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") <= 1


@pytest.mark.parametrize("state", ["40001", "40P01"])
async def test_the_loser_of_a_deadlock_is_told_to_repeat(database: Database, state: str) -> None:
    """It ended the process: a webhook's key that was found while it was marked, a position moved by two."""
    with pytest.raises(Unavailable):
        await database.execute(f"DO $$ BEGIN RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '{state}'; END $$")


@pytest.mark.parametrize("state", ["53100", "53200", "53300"])
async def test_a_server_without_room_is_away_and_not_a_wrong_statement(database: Database, state: str) -> None:
    with pytest.raises(Unavailable) as caught:
        await database.execute(f"DO $$ BEGIN RAISE EXCEPTION 'No space left' USING ERRCODE = '{state}'; END $$")
    assert caught.value.reason == "DATABASE_AWAY"
