"""Accounts: signing up, signing in, and who one is.

Decides: what an e-mail address and a name may look like, that an address counts without regard to case, and that a
wrong password and an unknown address cannot be told apart, by answer or by time.
Leaves: hashing to passwords.py, what follows a sign-in to sessions.py, how often one may try to the gateway.
"""

import unicodedata
from uuid import UUID

from chassis.database import Database
from chassis.errors import Conflict, Fault, Invalid, Unauthenticated
from chassis.ids import new_id
from services.auth import account_store, projects
from services.auth.account_store import User
from services.auth.passwords import Passwords
from services.auth.projects import Project
from services.auth.sessions import Sessions
from services.auth.tokens import TokenPair

_MAX_LOCAL_PART = 64


class Accounts:
    """The people of an installation."""

    def __init__(self, database: Database, passwords: Passwords, sessions: Sessions) -> None:
        self._database, self._passwords, self._sessions = database, passwords, sessions

    async def sign_up(self, email: str, password: str, name: str) -> tuple[User, Project, TokenPair]:
        """A new person with a project of their own, signed in. Raises: Conflict EMAIL_TAKEN; Invalid."""
        address, name = normalised_email(email), name.strip()
        faults = [*email_faults(address), *name_faults(name)]
        if faults:
            raise Invalid("SIGN_UP_INVALID", "The account cannot be made as it is asked for.", faults=faults)
        password_hash = await self._passwords.hashed(password)
        now = self._sessions.now()
        user = User(new_id(), address, name, now)
        async with self._database.transaction() as connection:
            if not await account_store.insert_user(connection, user, password_hash):
                raise Conflict("EMAIL_TAKEN", f"There is an account for {address} already. Sign in instead.")
            project = await projects.create_for_new_user(connection, user.id, name, now)
            return user, project, await self._sessions.open(connection, user.id)

    async def sign_in(self, email: str, password: str) -> tuple[User, TokenPair]:
        """A new session of a person. Raises: Unauthenticated WRONG_CREDENTIALS."""
        address = normalised_email(email)
        found = None
        if not email_faults(address):  # PostgreSQL refuses some of what cannot be an address
            found = await account_store.user_by_email(self._database, address)
        user, password_hash = found or (None, None)
        if not await self._passwords.matches(password, password_hash) or user is None:
            raise Unauthenticated("WRONG_CREDENTIALS", "Address or password is wrong.")
        async with self._database.transaction() as connection:
            return user, await self._sessions.open(connection, user.id)

    async def me(self, user_id: str) -> tuple[User, list[Project]]:
        """A person and their projects. Raises: Unauthenticated ACCOUNT_GONE."""
        user = await account_store.user_by_id(self._database, UUID(user_id))
        if user is None:
            raise Unauthenticated("ACCOUNT_GONE", "This account no longer exists. Sign up again.")
        return user, await projects.of_user(self._database, user.id)


def normalised_email(email: str) -> str:
    """The one form of an address that is stored and looked up."""
    return unicodedata.normalize("NFC", email.strip()).lower()


def email_faults(email: str) -> list[Fault]:
    """What keeps a normalised address from being one. Only a letter proves an address; this catches slips."""
    local, at, domain = email.rpartition("@")
    odd = any(character.isspace() or not character.isprintable() for character in email)
    if not at or not local or len(local) > _MAX_LOCAL_PART or not domain.strip(".") or odd or "@" in local:
        return [Fault(field="email", reason="EMAIL_MALFORMED", message="This is not an e-mail address.")]
    return []


def name_faults(name: str) -> list[Fault]:
    """What keeps a text from being a person's name: nothing to see, or control characters."""
    if not name or any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
        message = "A name has at least one visible character and no control characters."
        return [Fault(field="name", reason="NAME_MALFORMED", message=message)]
    return []
