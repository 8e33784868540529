"""What goes into a packed document comes out, and damage is said, not guessed at."""

import json
import os
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis import documents
from chassis.errors import Invalid


@given(st.binary(max_size=5000))
def test_what_was_packed_is_unpacked(raw: bytes) -> None:
    assert documents.unpack(documents.pack(raw)) == raw


def test_small_documents_stay_plain_and_large_ones_shrink() -> None:
    small, large = b'{"a":1}', json.dumps([{"name": "x", "n": n} for n in range(500)]).encode()
    assert documents.pack(small) == b"\x00" + small
    packed = documents.pack(large)
    assert packed[0] == documents.ZSTD
    assert len(packed) < len(large) / 3


def test_what_does_not_get_smaller_stays_plain() -> None:
    noise = os.urandom(4096)
    assert documents.pack(noise) == b"\x00" + noise


def test_zlib_documents_are_read_as_well() -> None:
    assert documents.unpack(b"\x02" + zlib.compress(b"[1]" * 1000)) == b"[1]" * 1000


@pytest.mark.parametrize(
    "damaged", [b"", b"\x07abc", b"\x01abc", b"\x02abc", b"\x02" + zlib.compress(b"[1]" * 1000)[:-6]]
)
def test_damage_is_said(damaged: bytes) -> None:
    with pytest.raises(Invalid, match="DOCUMENT_UNREADABLE"):
        documents.unpack(damaged)


@pytest.mark.parametrize("codec", [documents.ZSTD, documents.ZLIB])
def test_a_document_that_would_fill_the_memory_is_refused(codec: int) -> None:
    bomb = documents.pack(b" " * 100_000) if codec == documents.ZSTD else b"\x02" + zlib.compress(b" " * 100_000)
    with pytest.raises(Invalid, match="larger than 50000"):
        documents.unpack(bomb, max_bytes=50_000)


nested = st.recursive(
    st.none() | st.text(st.characters(exclude_categories=["Cs"])) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[]{}"\\ab', max_size=4), inner, max_size=3),
    max_leaves=60,
)


def depth_of(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max((depth_of(one) for one in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((depth_of(one) for one in value), default=0)
    return 0


@given(nested, st.integers(0, 30))
def test_depth_is_what_counting_says(value: object, around: int) -> None:
    for _ in range(around):
        value = [value, '"[', {"}": []}]
    json_bytes = json.dumps(value).encode()
    for limit in (16, 17, 20, 30):
        assert documents.deeper_than(json_bytes, limit) == (depth_of(value) > limit)
