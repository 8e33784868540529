"""The blob port: bodies too big for a record or a row. `contract.md` says what every adapter promises.

Decides: the few calls, and what a key may look like.
Leaves: where blobs lie to the adapters; who may read them to callers.
"""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from chassis.errors import Invalid

MAX_BLOB_BYTES = 5 * 1024**3
CHUNK_BYTES = 256 * 1024

_KEY = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9_.-]*/)*[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_MAX_KEY = 512
_MAX_PART = 128


@dataclass(frozen=True)
class Stored:
    """What was stored."""

    size_bytes: int
    sha256: bytes


class Blobs(Protocol):
    """Open it as an async context. Raises everywhere: Unavailable BLOBS_AWAY; Invalid BLOB_KEY."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def put(self, key: str, chunks: AsyncIterator[bytes], *, max_bytes: int = MAX_BLOB_BYTES) -> Stored:
        """Store a blob, whole or not at all; durable on return. Raises: TooLarge BLOB_TOO_LARGE."""
        ...

    def get(self, key: str, *, offset: int = 0) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open a blob; the context gives its chunks from `offset`. Raises: NotFound BLOB_NOT_FOUND when entered."""
        ...

    async def size(self, key: str) -> int:
        """Return the size of a blob in bytes. Raises: NotFound BLOB_NOT_FOUND."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete blobs; those that are not there are no error."""
        ...


def checked_key(key: str) -> str:
    """Return the key. Raises: Invalid BLOB_KEY when it is none."""
    if len(key) > _MAX_KEY or not _KEY.fullmatch(key) or any(len(part) > _MAX_PART for part in key.split("/")):
        raise Invalid("BLOB_KEY", f"{key[:100]!r} is no key for a blob: letters, digits, - _ . in parts between /.")
    return key
