"""Connections: other systems' secrets, kept shut.

Decides: a secret is sealed for its project and connection, and comes out only to resolve a run's expressions; names are
unique in a project; the JSON value that a connection is in an expression.
Leaves: sealing to encryption.py, when a run resolves to the executor.
Holds: no function here returns a secret to a person, and none writes one to a log or an error.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from chassis import pages
from chassis.clock import Clock
from chassis.database import Database
from chassis.errors import Conflict, NotFound
from chassis.ids import new_id
from services.auth import connection_store
from services.auth.connection_store import Connection
from services.auth.encryption import Keyring, SealBrokenError

_AFTER_ALL = UUID(int=(1 << 128) - 1)


class Resolved(msgspec.Struct, frozen=True):
    """A connection as expressions see it: `value` is JSON, `secrets` are the texts in it that must be masked."""

    name: str
    value: bytes
    secrets: list[str]


class Connections:
    """The connections of all projects."""

    def __init__(self, database: Database, keyring: Keyring, clock: Clock) -> None:
        self._database, self._keyring, self._clock = database, keyring, clock

    async def create(self, project_id: UUID, name: str, kind: int, secret: str) -> Connection:
        """Stores a new connection. Raises: Conflict CONNECTION_NAME_TAKEN."""
        now = self._now()
        new = Connection(new_id(), name, kind, now, now)
        sealed = self._keyring.seal(secret.encode(), _bound_to(project_id, new.id))
        if not await connection_store.insert(self._database, project_id, new, sealed):
            raise Conflict(
                "CONNECTION_NAME_TAKEN", f"This project has a connection {name!r} already. Choose another name."
            )
        return new

    async def get(self, project_id: UUID, connection_id: UUID) -> Connection:
        """One connection of a project. Raises: NotFound CONNECTION_NOT_FOUND."""
        found = await connection_store.get(self._database, project_id, connection_id)
        return _existing(found, connection_id)

    async def page(self, project_id: UUID, page_size: int, page_token: str) -> tuple[list[Connection], str]:
        """A page, newest first, and the token of the next one, empty on the last. Raises: Invalid."""
        limit = pages.page_size(page_size)
        before = pages.read_page_token(page_token, "connections", project_id) or _AFTER_ALL
        found = await connection_store.page(self._database, project_id, before, limit + 1)
        if len(found) <= limit:
            return found, ""
        return found[:limit], pages.page_token(found[limit - 1].id, "connections", project_id)

    async def replace_secret(self, project_id: UUID, connection_id: UUID, secret: str) -> Connection:
        """Puts another secret in the place of the old one. Raises: NotFound CONNECTION_NOT_FOUND."""
        sealed = self._keyring.seal(secret.encode(), _bound_to(project_id, connection_id))
        changed = await connection_store.replace_secret(self._database, project_id, connection_id, sealed, self._now())
        return _existing(changed, connection_id)

    async def delete(self, project_id: UUID, connection_id: UUID) -> None:
        """Deletes a connection for good. Raises: NotFound CONNECTION_NOT_FOUND."""
        if not await connection_store.delete(self._database, project_id, connection_id):
            raise _not_found(connection_id)

    async def resolve(self, project_id: UUID, names: Sequence[str]) -> list[Resolved]:
        """The opened connections of those names that exist. Raises: Conflict CONNECTION_UNREADABLE."""
        if not names:
            return []
        found = await connection_store.sealed_by_name(self._database, project_id, names)
        return [self._opened(project_id, sealed) for sealed in found]

    def _opened(self, project_id: UUID, sealed: connection_store.SealedConnection) -> Resolved:
        try:
            secret = self._keyring.open(sealed.sealed, _bound_to(project_id, sealed.id)).decode()
        except SealBrokenError as broken:
            raise Conflict(
                "CONNECTION_UNREADABLE",
                f"The secret of the connection {sealed.name!r} cannot be opened. {broken} "
                "Give auth the missing key, or replace the secret.",
            ) from broken
        return Resolved(sealed.name, msgspec.json.encode({"secret": secret}), [secret])

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)


def _bound_to(project_id: UUID, connection_id: UUID) -> str:
    return f"connection:{project_id}:{connection_id}"


def _existing(found: Connection | None, connection_id: UUID) -> Connection:
    if found is None:
        raise _not_found(connection_id)
    return found


def _not_found(connection_id: UUID) -> NotFound:
    return NotFound("CONNECTION_NOT_FOUND", f"There is no connection {connection_id} in this project.")
