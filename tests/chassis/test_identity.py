"""Who may prove to be whom, and for how long."""

from base64 import urlsafe_b64decode, urlsafe_b64encode

import msgspec
import pytest

from chassis.errors import Denied, Unauthenticated
from chassis.identity import (
    ANONYMOUS,
    Caller,
    Signer,
    Verifier,
    acting_as,
    called_by,
    current_caller,
    outgoing_caller,
    require_project,
    service_caller,
    sign,
    verify,
)

KEY = b"k" * 32
USER = Caller("user", "u1", "p1", frozenset({4, 9}))


@pytest.mark.parametrize("caller", [USER, ANONYMOUS, service_caller("flows"), Caller("user", "ü")])
def test_a_signed_caller_is_the_same_for_whoever_holds_the_key(caller: Caller) -> None:
    assert verify(sign(caller, KEY, 60), KEY) == caller
    verifier = Verifier(KEY)
    text = Signer(KEY).text(caller)
    assert verifier.caller(text) == verifier.caller(text) == caller


def test_every_changed_byte_is_noticed() -> None:
    text = sign(USER, KEY, 60)
    for position in range(len(text)):
        changed = text[:position] + ("A" if text[position] != "A" else "B") + text[position + 1 :]
        if position == len(text) - 2 and urlsafe_b64decode(changed.rpartition(".")[2]) == urlsafe_b64decode(
            text.rpartition(".")[2]
        ):
            continue  # the last character carries bits that mean nothing
        with pytest.raises(Unauthenticated):
            verify(changed, KEY)


@pytest.mark.parametrize("text", ["", ".", "a.b", "ü.ü", "====.====", sign(USER, b"x" * 32, 60)])
def test_what_is_not_signed_with_the_key_is_refused(text: str) -> None:
    with pytest.raises(Unauthenticated, match="CALLER_INVALID"):
        verify(text, KEY)


def test_more_permissions_cannot_be_written_into_a_signed_text() -> None:
    payload, _, signature = sign(USER, KEY, 60).partition(".")
    claim = msgspec.msgpack.decode(urlsafe_b64decode(payload))
    claim[3] = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    with pytest.raises(Unauthenticated):
        verify(urlsafe_b64encode(msgspec.msgpack.encode(claim)).decode() + "." + signature, KEY)


def test_an_identity_ends_also_when_it_was_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    verifier, text = Verifier(KEY), sign(USER, KEY, 60)
    assert verifier.caller(text) == USER
    import time

    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    for _ in range(2):
        with pytest.raises(Unauthenticated, match="CALLER_EXPIRED"):
            verifier.caller(text)


def test_a_signer_signs_anew_after_half_the_life(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    signer = Signer(KEY, ttl_s=100)
    first = signer.text(USER)
    assert signer.text(USER) == first
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 51)
    assert signer.text(USER) != first


def test_a_call_is_the_services_own_unless_it_acts_for_somebody() -> None:
    own = service_caller("flows")
    assert outgoing_caller(own) == own
    with acting_as(USER):
        assert outgoing_caller(own) == USER
    with called_by(USER):
        assert current_caller() == USER
        assert outgoing_caller(own) == own
    assert current_caller() == ANONYMOUS


def test_a_project_is_required_by_name() -> None:
    with called_by(USER):
        assert require_project() == "p1"
    with called_by(service_caller("flows")), pytest.raises(Denied, match="PROJECT_REQUIRED"):
        require_project()
