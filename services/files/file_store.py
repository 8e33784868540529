"""Statements on `files.file`: what is known about each file besides its content.

Decides: that a file is found within its project alone. Leaves: content to chassis/blobs, rules to files.py.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from chassis.database import Database

_INSERT = """
INSERT INTO files.file (id, project_id, name, content_type, size_bytes, sha256, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""

# A file of another project is not there (security.md, Authorisation).
_GET = """
SELECT id, project_id, name, content_type, size_bytes, sha256, created_at
  FROM files.file WHERE id = $1 AND project_id = $2
"""


@dataclass(frozen=True, slots=True)
class File:
    """A stored file, without its content."""

    id: UUID
    project_id: UUID
    name: str
    content_type: str
    size_bytes: int
    sha256: bytes
    created_at: datetime


class FileStore:
    """The table of files."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, file: File) -> None:
        """Remember a file whose content is stored."""
        await self._database.execute(
            _INSERT,
            file.id,
            file.project_id,
            file.name,
            file.content_type,
            file.size_bytes,
            file.sha256,
            file.created_at,
        )

    async def get(self, project_id: UUID, file_id: UUID) -> File | None:
        """The file of that project; None when the project has none of that id."""
        row = await self._database.fetchrow(_GET, file_id, project_id)
        return None if row is None else File(**dict(row))
