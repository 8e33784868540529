"""The promises of the blob port (`chassis/blobs/contract.md`), kept by every adapter."""

import hashlib
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from chassis.blobs import Blobs, LocalBlobs
from chassis.errors import Invalid, NotFound, TooLarge, Unavailable


@pytest.fixture(params=["local"])
async def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Blobs]:
    async with LocalBlobs(tmp_path / "blobs") as opened:
        yield opened


async def stream(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def content(blobs: Blobs, key: str, offset: int = 0) -> bytes:
    async with blobs.get(key, offset=offset) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_what_was_put_is_got_and_measured(blobs: Blobs) -> None:
    chunks = [os.urandom(300_000) for _ in range(5)]
    whole = b"".join(chunks)
    stored = await blobs.put("project/file-1.bin", stream(chunks))
    assert stored.size_bytes == len(whole) == await blobs.size("project/file-1.bin")
    assert stored.sha256 == hashlib.sha256(whole).digest()
    assert await content(blobs, "project/file-1.bin") == whole
    assert await content(blobs, "project/file-1.bin", offset=1_000_001) == whole[1_000_001:]


async def test_an_empty_blob_is_a_blob(blobs: Blobs) -> None:
    await blobs.put("empty", stream([]))
    assert await content(blobs, "empty") == b""


async def test_a_second_put_replaces_the_first_and_readers_keep_what_they_opened(blobs: Blobs) -> None:
    await blobs.put("a", stream([b"first"]))
    async with blobs.get("a") as chunks:
        await blobs.put("a", stream([b"second"]))
        assert b"".join([chunk async for chunk in chunks]) == b"first"
    assert await content(blobs, "a") == b"second"


async def test_a_writer_that_dies_half_way_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield b"half"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await blobs.put("a", breaks())
    with pytest.raises(NotFound, match="BLOB_NOT_FOUND"):
        await content(blobs, "a")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


async def test_a_blob_over_the_limit_is_refused_and_leaves_nothing(blobs: Blobs) -> None:
    with pytest.raises(TooLarge, match="BLOB_TOO_LARGE"):
        await blobs.put("a", stream([b"x" * 60, b"x" * 60]), max_bytes=100)
    with pytest.raises(NotFound):
        await blobs.size("a")


async def test_deleting_is_for_ever_and_of_nothing_no_error(blobs: Blobs) -> None:
    await blobs.put("a", stream([b"1"]))
    await blobs.put("b", stream([b"2"]))
    await blobs.delete(["a", "never-there"])
    with pytest.raises(NotFound):
        await blobs.size("a")
    assert await content(blobs, "b") == b"2"


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/../b", ".a", "a b", "ü", "a\n", "x" * 129, "a/" * 300]
)
async def test_a_wrong_key_is_refused(blobs: Blobs, key: str) -> None:
    with pytest.raises(Invalid, match="BLOB_KEY"):
        await blobs.put(key, stream([b"1"]))


async def test_a_key_below_another_is_a_blob_of_its_own(blobs: Blobs) -> None:
    await blobs.put("a", stream([b"1"]))
    await blobs.put("a/b", stream([b"2"]))
    assert (await content(blobs, "a"), await content(blobs, "a/b")) == (b"1", b"2")


async def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="BLOBS_AWAY"):
        async with LocalBlobs(tmp_path / "file" / "blobs"):
            pass
