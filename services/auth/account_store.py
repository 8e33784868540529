"""The statements of users.

Decides: who was first with an address (a unique index). Leaves: what a user may be called to accounts.py.
"""

from datetime import datetime
from uuid import UUID

import msgspec

from chassis.database import Database, Pooled

# Unique index user_email_key (email) decides who was first.
INSERT_USER = """INSERT INTO auth."user" (id, email, name, password_hash, created_at)
    VALUES ($1, $2, $3, $4, $5) ON CONFLICT (email) DO NOTHING RETURNING id"""
# Unique index user_email_key (email).
USER_BY_EMAIL = """SELECT id, email, name, created_at, password_hash FROM auth."user" WHERE email = $1"""
# Primary key user_pkey (id).
USER_BY_ID = """SELECT id, email, name, created_at FROM auth."user" WHERE id = $1"""


class User(msgspec.Struct, frozen=True):
    """A person, without their password."""

    id: UUID
    email: str
    name: str
    created_at: datetime


async def insert_user(connection: Pooled, user: User, password_hash: bytes) -> bool:
    """Inserts a person; False when the address is taken."""
    inserted = await connection.fetchval(INSERT_USER, user.id, user.email, user.name, password_hash, user.created_at)
    return inserted is not None


async def user_by_email(database: Database, email: str) -> tuple[User, bytes] | None:
    """A person and the hash of their password, by normalised address."""
    row = await database.fetchrow(USER_BY_EMAIL, email)
    if row is None:
        return None
    return User(row["id"], row["email"], row["name"], row["created_at"]), row["password_hash"]


async def user_by_id(database: Database, user_id: UUID) -> User | None:
    """A person."""
    row = await database.fetchrow(USER_BY_ID, user_id)
    return None if row is None else User(row["id"], row["email"], row["name"], row["created_at"])
