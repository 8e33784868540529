"""The statements of sessions and their refresh tokens.

A session is the family of its refresh tokens. Each token is a row of its own, kept when spent, so that a second use is
seen for what it is.

Decides: that of two who spend a token at once one finds it spent. Leaves: what follows to sessions.py.
"""

from datetime import datetime
from uuid import UUID

from chassis.database import Database, Pooled

INSERT_SESSION = """WITH opened AS (
        INSERT INTO auth.session (id, user_id, created_at, expires_at) VALUES ($1, $2, $4, $5)
    ) INSERT INTO auth.refresh_token (token_hash, session_id, issued_at) VALUES ($3, $1, $4)"""
# Primary key refresh_token_pkey (token_hash). Two at once: one waits for the other's row and then finds it spent.
SPEND_TOKEN = """UPDATE auth.refresh_token SET spent_at = $2
    WHERE token_hash = $1 AND spent_at IS NULL RETURNING session_id"""
# Primary key session_pkey (id).
EXTEND_SESSION = """UPDATE auth.session SET expires_at = $3
    WHERE id = $1 AND ended_at IS NULL AND expires_at > $2 RETURNING user_id"""
INSERT_TOKEN = "INSERT INTO auth.refresh_token (session_id, token_hash, issued_at) VALUES ($1, $2, $3)"
# Primary keys refresh_token_pkey, session_pkey.
END_SESSION_OF_TOKEN = """UPDATE auth.session SET ended_at = $2, end_reason = $3
    WHERE id = (SELECT session_id FROM auth.refresh_token WHERE token_hash = $1) AND ended_at IS NULL
    RETURNING id"""
# Index session_by_expiry (expires_at). Tokens go with their session (foreign key, index refresh_token_by_session).
DELETE_OLD_SESSIONS = """DELETE FROM auth.session WHERE id IN (
    SELECT id FROM auth.session WHERE expires_at < $1 ORDER BY expires_at LIMIT 500) RETURNING id"""


async def open_session(
    connection: Pooled, session_id: UUID, user_id: UUID, token_hash: bytes, at: datetime, expires_at: datetime
) -> None:
    """Inserts a session with its first refresh token."""
    await connection.execute(INSERT_SESSION, session_id, user_id, token_hash, at, expires_at)


async def spend_token(connection: Pooled, token_hash: bytes, at: datetime) -> UUID | None:
    """Marks an unspent token as spent and tells its session; None when it is unknown or spent."""
    session_id: UUID | None = await connection.fetchval(SPEND_TOKEN, token_hash, at)
    return session_id


async def extend_session(connection: Pooled, session_id: UUID, at: datetime, expires_at: datetime) -> UUID | None:
    """Prolongs a living session and tells its user; None when it has ended or expired."""
    user_id: UUID | None = await connection.fetchval(EXTEND_SESSION, session_id, at, expires_at)
    return user_id


async def add_token(connection: Pooled, session_id: UUID, token_hash: bytes, at: datetime) -> None:
    """Inserts the next refresh token of a session."""
    await connection.execute(INSERT_TOKEN, session_id, token_hash, at)


async def end_session_of(database: Database, token_hash: bytes, at: datetime, reason: str) -> UUID | None:
    """Ends the session that a token, spent or not, belongs to; None when there is none or it has ended already."""
    session_id: UUID | None = await database.fetchval(END_SESSION_OF_TOKEN, token_hash, at, reason)
    return session_id


async def delete_old(database: Database, before: datetime) -> int:
    """Deletes up to 500 sessions that expired before a moment, and tells how many it were."""
    return len(await database.fetch(DELETE_OLD_SESSIONS, before))
