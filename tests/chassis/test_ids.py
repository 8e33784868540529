"""Ids are UUIDv7, grow within a process, and are never shared between processes."""

import os
import threading
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis import ids
from chassis.clock import SystemClock


def test_an_id_is_a_uuid_of_version_7_and_carries_its_time() -> None:
    before = SystemClock().now_ms()
    made = ids.new_id()
    after = SystemClock().now_ms()
    assert made.version == 7
    assert made.variant == "specified in RFC 4122"
    assert before <= ids.timestamp_ms(made) <= after + 1
    assert ids.timestamp_ms(made.bytes) == ids.timestamp_ms(made)


def test_ids_only_grow_within_a_millisecond_too() -> None:
    made = [ids.new_id_bytes() for _ in range(20_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_ids_only_grow_when_the_wall_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ids.new_id()
    monkeypatch.setattr("chassis.ids.time.time_ns", lambda: 1_000_000_000)
    assert ids.new_id() > first


def test_threads_never_get_the_same_id() -> None:
    made: list[bytes] = []

    def mint() -> None:
        made.extend([ids.new_id_bytes() for _ in range(3000)])

    threads = [threading.Thread(target=mint) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 12_000


def test_a_forked_child_starts_a_sequence_of_its_own() -> None:
    ids.new_id()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b"".join(ids.new_id_bytes() for _ in range(100)))
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reader, 1600)
    os.close(reader)
    os.close(writer)
    ours = {ids.new_id_bytes() for _ in range(100)}
    assert not ours & {theirs[at : at + 16] for at in range(0, 1600, 16)}


def test_text_and_bytes_are_two_forms_of_one_id() -> None:
    text = ids.new_text_id()
    assert str(UUID(text)) == text
    assert ids.text_of(ids.bytes_of(text)) == text


@given(st.integers(0, 2**47), st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_a_derived_id_depends_on_time_and_parts_alone(at_ms: int, parts: list[str], others: list[str]) -> None:
    made = ids.derived_id(at_ms, *parts)
    assert made == ids.derived_id(at_ms, *parts)
    assert made.version == 7
    assert ids.timestamp_ms(made) == at_ms
    assert ids.first_id_at(at_ms) <= made < ids.first_id_at(at_ms + 1)
    assert (ids.derived_id(at_ms, *others) == made) == (others == parts)
