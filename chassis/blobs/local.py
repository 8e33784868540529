"""Blobs in a folder of this machine (embedded mode).

Decides: a blob is written beside its place, synced, and moved there (`rename` is all or nothing); keys are spread over
folders by their hash, so no folder grows without bound and no two keys meet.
Leaves: keys to `port`. Holds: file work happens in threads, never in the event loop.
"""

import asyncio
import contextlib
import errno
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from chassis.blobs.port import CHUNK_BYTES, MAX_BLOB_BYTES, Stored, checked_key
from chassis.errors import NotFound, TooLarge, Unavailable

_LEFTOVER_S = 24 * 3600.0


class LocalBlobs:
    """A folder that this installation alone writes to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writing = folder / "writing"

    async def __aenter__(self) -> Self:
        with _mapped(self._folder):
            await asyncio.to_thread(self._prepare)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def put(self, key: str, chunks: AsyncIterator[bytes], *, max_bytes: int = MAX_BLOB_BYTES) -> Stored:
        """Store a blob, whole or not at all; durable on return. Raises: TooLarge BLOB_TOO_LARGE."""
        place = self._place(key)
        with _mapped(self._folder):
            file = await asyncio.to_thread(self._begin)
            try:
                stored = await _fill(file, key, chunks, max_bytes)
                await asyncio.to_thread(_finish, file, place)
            except BaseException:
                file.close()
                _forget(Path(file.name))
                raise
        return stored

    @asynccontextmanager
    async def get(self, key: str, *, offset: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a blob; the context gives its chunks from `offset`. Raises: NotFound BLOB_NOT_FOUND when entered."""
        place = self._place(key)
        with _mapped(self._folder, key):
            file = await asyncio.to_thread(place.open, "rb")
        try:
            file.seek(offset)
            yield _chunks(file, self._folder)
        finally:
            file.close()

    async def size(self, key: str) -> int:
        """Return the size of a blob in bytes. Raises: NotFound BLOB_NOT_FOUND."""
        with _mapped(self._folder, key):
            return (await asyncio.to_thread(self._place(key).stat)).st_size

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete blobs; those that are not there are no error."""
        places = [self._place(key) for key in keys]

        def unlink() -> None:
            for place in places:
                place.unlink(missing_ok=True)

        with _mapped(self._folder):
            await asyncio.to_thread(unlink)

    def _place(self, key: str) -> Path:
        """Return where a key lies: two folders of its hash, then its hash and last part, to recognise it by."""
        name = hashlib.sha256(checked_key(key).encode()).hexdigest()
        return self._folder / name[:2] / name[2:4] / f"{name[4:]}-{key.rsplit('/', 1)[-1]}"

    def _prepare(self) -> None:
        self._writing.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_IMODE(self._folder.stat().st_mode) & 0o077:
            self._folder.chmod(0o700)
        oldest = time.time() - _LEFTOVER_S  # of writers that died; wall time, because files carry no other
        for left in self._writing.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if left.stat().st_mtime < oldest:
                    left.unlink()

    def _begin(self) -> "IO[bytes]":
        # Not deleted on close: `_finish` moves it, `put` removes it when something goes wrong.
        return tempfile.NamedTemporaryFile(dir=self._writing, delete=False)


async def _fill(file: IO[bytes], key: str, chunks: AsyncIterator[bytes], max_bytes: int) -> Stored:
    digest = hashlib.sha256()
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > max_bytes:
            raise TooLarge("BLOB_TOO_LARGE", f"{key} is larger than {max_bytes} bytes.")
        digest.update(chunk)
        await asyncio.to_thread(file.write, chunk)
    return Stored(size, digest.digest())


def _forget(left: Path) -> None:
    left.unlink(missing_ok=True)


def _finish(file: IO[bytes], place: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()
    made = not place.parent.exists()
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    Path(file.name).replace(place)
    for folder in (place.parent, place.parent.parent, place.parent.parent.parent)[: 3 if made else 1]:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # the name, too, survives a power cut
        finally:
            os.close(descriptor)


async def _chunks(file: IO[bytes], folder: Path) -> AsyncIterator[bytes]:
    while True:
        with _mapped(folder):
            chunk = await asyncio.to_thread(file.read, CHUNK_BYTES)
        if not chunk:
            return
        yield chunk


@contextmanager
def _mapped(folder: Path, key: str = "") -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        if key:
            raise NotFound("BLOB_NOT_FOUND", f"There is no blob {key}.") from error
        raise Unavailable("BLOBS_AWAY", f"The folder {folder} is gone.", retry_after_s=5.0) from error
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        why = "its disk is full" if full else error.strerror or str(error)
        raise Unavailable("BLOBS_AWAY", f"The folder {folder} cannot be used: {why}.", retry_after_s=5.0) from error
