"""Files: stored once, never changed, each in one project.

Decides: the blob first, the row second, so that every row has its content; a blob without a row is removed, or left to
retention when even that fails.
Leaves: bytes on disk and their hash to chassis.blobs, statements to file_store.py.
Holds: a blob's key is made of ids alone; what a sender calls a file is never part of a path.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

from chassis.blobs import Blobs
from chassis.clock import Clock
from chassis.errors import Invalid, NotFound, TooLarge
from chassis.ids import new_id
from services.files.file_store import File, FileStore

DEFAULT_TYPE = "application/octet-stream"


class Files:
    """Stores and finds files."""

    def __init__(self, store: FileStore, blobs: Blobs, clock: Clock, max_bytes: int) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._max_bytes = max_bytes

    async def upload(self, project_id: UUID, name: str, content_type: str, parts: AsyncIterator[bytes]) -> File:
        """Store a file; durable on return. Raises: Invalid FILE_TOO_LARGE; Unavailable."""
        file_id = new_id()
        key = _key(project_id, file_id)
        try:
            stored = await self._blobs.put(key, parts, max_bytes=self._max_bytes)
        except TooLarge as error:
            raise Invalid("FILE_TOO_LARGE", f"A file may have {self._max_bytes} bytes at most.") from error
        file = File(
            id=file_id,
            project_id=project_id,
            name=name.replace("\0", ""),  # the one character that PostgreSQL's text refuses
            content_type=content_type.replace("\0", "") or DEFAULT_TYPE,
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
            created_at=datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC),
        )
        try:
            await self._store.insert(file)
        except BaseException:
            await self._blobs.delete([key])
            raise
        return file

    async def get(self, project_id: UUID, file_id: UUID) -> File:
        """A file of a project. Raises: NotFound FILE_NOT_FOUND."""
        file = await self._store.get(project_id, file_id)
        if file is None:
            raise NotFound("FILE_NOT_FOUND", f"There is no file {file_id} in this project.")
        return file

    async def content(self, project_id: UUID, file_id: UUID) -> AsyncIterator[bytes]:
        """The content in order. Raises: NotFound FILE_NOT_FOUND."""
        file = await self.get(project_id, file_id)
        async with self._blobs.get(_key(file.project_id, file.id)) as chunks:
            async for chunk in chunks:
                yield chunk


def _key(project_id: UUID, file_id: UUID) -> str:
    return f"{project_id}/{file_id}"
