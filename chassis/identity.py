"""Who is calling: the caller's identity, how it is signed between processes, and where a handler finds it.

Decides: what a caller is; the format and life of the `millrace-caller` metadata; that an outgoing call is made as the
process's own service unless `acting_as` says otherwise (an incoming identity is never passed on silently).
Leaves: what a caller may do to `permissions`; proving that a person is who they say to auth and the gateway.
Holds: nobody without the installation's internal key can make an identity; a signed one ends after its life.
"""

import hashlib
import hmac
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import msgspec

from chassis.errors import Denied, Unauthenticated

CALLER_METADATA_KEY = "millrace-caller"
CallerKind = Literal["user", "service", "anonymous"]


class Caller(msgspec.Struct, frozen=True):
    """Who makes a call: a person, a service of this installation, or nobody known.

    `id` is the user id or the service name. `permissions` are numbers of `millrace.options.v1.Permission`, valid in
    `project_id`.
    """

    kind: CallerKind
    id: str
    project_id: str | None = None
    permissions: frozenset[int] = frozenset()


ANONYMOUS = Caller("anonymous", "")


def service_caller(name: str) -> Caller:
    """The identity of a service itself."""
    return Caller("service", name)


_current: ContextVar[Caller] = ContextVar("millrace_current_caller", default=ANONYMOUS)
_acting: ContextVar[Caller | None] = ContextVar("millrace_acting_as", default=None)


def current_caller() -> Caller:
    """Who called the RPC that is being handled; anonymous outside of one."""
    return _current.get()


def require_project() -> str:
    """The project of the current caller. Raises: Denied PROJECT_REQUIRED when the caller has none."""
    project_id = _current.get().project_id
    if project_id is None:
        raise Denied(
            "PROJECT_REQUIRED", "This call needs a project, and the caller is not in one. Choose a project first."
        )
    return project_id


def enter_call(caller: Caller) -> None:
    """Sets the current caller for the rest of this task's context; calls made from here are the service's own again."""
    _current.set(caller)
    _acting.set(None)


@contextmanager
def called_by(caller: Caller) -> Iterator[None]:
    """Runs a block as if `caller` had called: for loops that do a person's work later, and for tests of domain code."""
    token = _current.set(caller)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def acting_as(caller: Caller) -> Iterator[None]:
    """Calls that start inside the block are made for `caller`."""
    token = _acting.set(caller)
    try:
        yield
    finally:
        _acting.reset(token)


def outgoing_caller(own: Caller) -> Caller:
    """Whom a call that starts now is for: the one of `acting_as`, else the service itself."""
    return _acting.get() or own


class _Claim(msgspec.Struct, array_like=True):
    """What is signed."""

    kind: CallerKind
    id: str
    project_id: str | None
    permissions: list[int]
    expires_at_s: float


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Claim).decode


def _mac(payload: bytes, key: bytes) -> bytes:
    return hmac.digest(key, b"millrace-caller-v1." + payload, hashlib.sha256)


def sign(caller: Caller, key: bytes, ttl_s: float) -> str:
    """The metadata value that proves `caller` for `ttl_s` seconds to whoever holds the same key."""
    claim = _Claim(caller.kind, caller.id, caller.project_id, sorted(caller.permissions), time.time() + ttl_s)
    payload = urlsafe_b64encode(_encode(claim))
    return (payload + b"." + urlsafe_b64encode(_mac(payload, key))).decode()


def verify(text: str, key: bytes) -> Caller:
    """The caller that a metadata value proves. Raises: Unauthenticated CALLER_INVALID or CALLER_EXPIRED."""
    return _verified(text, key)[0]


def _verified(text: str, key: bytes) -> tuple[Caller, float]:
    try:
        payload, _, signature = text.encode("ascii").partition(b".")
        genuine = hmac.compare_digest(urlsafe_b64decode(signature), _mac(payload, key))
        claim = _decode(urlsafe_b64decode(payload)) if genuine else None
    except (ValueError, msgspec.MsgspecError):
        claim = None
    if claim is None:
        raise Unauthenticated(
            "CALLER_INVALID",
            "The caller's identity is not signed with this installation's internal key. Give all processes the same.",
        )
    if claim.expires_at_s < time.time():
        raise _expired()
    return Caller(claim.kind, claim.id, claim.project_id, frozenset(claim.permissions)), claim.expires_at_s


def _expired() -> Unauthenticated:
    return Unauthenticated(
        "CALLER_EXPIRED", "The caller's signed identity has expired. Call again; check the clocks if it stays."
    )


class Signer:
    """Signs outgoing callers, each once per half life (a signature costs 6 µs, a look-up 0.2)."""

    def __init__(self, key: bytes, ttl_s: float = 120.0, remember: int = 4096) -> None:
        self._key, self._ttl_s, self._remember = key, ttl_s, remember
        self._known: dict[Caller, tuple[str, float]] = {}

    def text(self, caller: Caller) -> str:
        """The metadata value for a caller, good for at least half the life from now."""
        now = time.time()
        known = self._known.get(caller)
        if known is not None and known[1] > now:
            return known[0]
        if len(self._known) >= self._remember:
            self._known.clear()
        text = sign(caller, self._key, self._ttl_s)
        self._known[caller] = (text, now + self._ttl_s / 2)
        return text


class Verifier:
    """Verifies incoming callers and remembers the good ones until they expire."""

    def __init__(self, key: bytes, remember: int = 4096) -> None:
        self._key, self._remember = key, remember
        self._known: dict[str, tuple[Caller, float]] = {}

    def caller(self, text: str) -> Caller:
        """As `verify`, cheaper for a text seen before."""
        known = self._known.get(text)
        if known is None:
            if len(self._known) >= self._remember:
                self._known.clear()
            known = self._known[text] = _verified(text, self._key)
        elif known[1] < time.time():
            del self._known[text]
            raise _expired()
        return known[0]
