"""Sealing: what opens, what stays shut, and which keys are refused at the start."""

import stat
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import StartRefused
from services.auth.encryption import Keyring, SealBrokenError, load_keyring, parse_keys

OLD, NEW = bytes(range(32)), bytes(range(32, 64))


def text(key_id: str, key: bytes) -> str:
    return f"{key_id}:{b64encode(key).decode()}"


@given(st.binary(max_size=300), st.text(max_size=40))
def test_what_is_sealed_opens_with_the_same_binding(plain: bytes, bound_to: str) -> None:
    ring = Keyring([("new", NEW)])
    assert ring.open(ring.seal(plain, bound_to), bound_to) == plain


def test_no_two_seals_are_alike() -> None:
    ring = Keyring([("new", NEW)])
    assert ring.seal(b"same", "here") != ring.seal(b"same", "here")


@given(st.integers(min_value=0), st.integers(1, 255))
def test_a_changed_byte_anywhere_keeps_it_shut(place: int, change: int) -> None:
    ring = Keyring([("new", NEW)])
    sealed = bytearray(ring.seal(b"plain", "here"))
    sealed[place % len(sealed)] ^= change
    with pytest.raises(SealBrokenError):
        ring.open(bytes(sealed), "here")


@pytest.mark.parametrize("sealed", [b"", b"\x01", b"\x01\xff", b"\x01\x03new", b"\x01\x03new" + bytes(12)])
def test_a_fragment_is_broken_not_a_crash(sealed: bytes) -> None:
    with pytest.raises(SealBrokenError):
        Keyring([("new", NEW)]).open(sealed, "here")


def test_a_seal_does_not_open_in_another_place() -> None:
    ring = Keyring([("new", NEW)])
    with pytest.raises(SealBrokenError):
        ring.open(ring.seal(b"plain", "connection:a:b"), "connection:a:c")


def test_after_a_rotation_old_seals_open_and_new_ones_carry_the_new_key() -> None:
    sealed = Keyring([("old", OLD)]).seal(b"plain", "here")
    rotated = Keyring(parse_keys(f"{text('new', NEW)}, {text('old', OLD)}"))
    assert rotated.open(sealed, "here") == b"plain"
    assert rotated.seal(b"plain", "here")[2:5] == b"new"
    with pytest.raises(SealBrokenError, match="'old'"):
        Keyring([("new", NEW)]).open(sealed, "here")


@pytest.mark.parametrize(
    "keys",
    [
        text("weak", bytes(32)),
        text("short", NEW[:16]),
        "nocolon",
        f":{b64encode(NEW).decode()}",
        "bad:***",
        f"spa ce:{b64encode(NEW).decode()}",
        f"{text('same', NEW)},{text('same', OLD)}",
    ],
)
def test_a_malformed_or_weak_key_refuses_the_start_without_showing_it(keys: str) -> None:
    with pytest.raises(StartRefused) as refused:
        parse_keys(keys)
    assert b64encode(NEW).decode() not in str(refused.value)


def test_outside_of_embedded_mode_a_missing_key_refuses_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartRefused, match="MILLRACE_ENCRYPTION_KEYS"):
        load_keyring("", tmp_path, embedded=False)
    assert not list(tmp_path.iterdir())


def test_embedded_mode_makes_a_key_that_only_the_owner_reads_and_keeps_it(tmp_path: Path) -> None:
    sealed = load_keyring("", tmp_path, embedded=True).seal(b"plain", "here")
    file = tmp_path / "secrets" / "encryption.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_keyring("", tmp_path, embedded=True).open(sealed, "here") == b"plain"
    # an operator who later sets a key of their own still opens what the file sealed
    own = load_keyring(text("own", NEW), tmp_path, embedded=True)
    assert own.open(sealed, "here") == b"plain"
    assert own.seal(b"plain", "here")[2:5] == b"own"
