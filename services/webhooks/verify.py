"""Who may call an endpoint: shared-secret header, basic, HMAC signatures.

Decides: whether one request proves itself, over the raw bytes, before anything is parsed.
Leaves: what a trigger's settings say to triggers.py, where secrets come from to connection_secrets.py.
Holds: comparisons take constant time and look at every live secret; a proof without a secret refuses (fail closed); the
answer is the same whatever is wrong.
"""

import binascii
import hmac
from base64 import b64decode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from chassis.errors import Unauthenticated
from services.webhooks.refusals import CREDENTIALS_INVALID, SIGNATURE_INVALID

Algorithm = Literal["sha256", "sha1", "sha512", "sha384"]
Encoding = Literal["hex", "base64"]

_MILLISECONDS_FROM = 100_000_000_000
"""A timestamp above this (year 5138 in seconds) is in milliseconds."""


@dataclass(frozen=True, slots=True)
class Open:
    """Anyone may call."""


@dataclass(frozen=True, slots=True)
class SecretHeader:
    """A header carries the secret itself, after a fixed prefix (`Bearer `)."""

    header: str
    prefix: str
    secrets: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Basic:
    """HTTP basic authentication."""

    username: str
    secrets: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """An HMAC over the raw body, or over a text around it that includes a timestamp header."""

    header: str
    secrets: tuple[bytes, ...]
    algorithm: Algorithm = "sha256"
    encoding: Encoding = "hex"
    prefix: str = ""
    timestamp_header: str = ""
    tolerance_s: int = 300
    signed_text: tuple[str, str] = ("", "")
    """What stands before and after the body in the signed text; `{timestamp}` in it is the timestamp header's value."""


Proof = Open | SecretHeader | Basic | Signature


def verify(proof: Proof, headers: Mapping[str, str], body: bytes, now_ms: int) -> Unauthenticated | None:
    """Whether the request proves itself: None, or the refusal to send. `headers` by lower-case name, repeats joined."""
    if isinstance(proof, Open):
        return None
    if isinstance(proof, SecretHeader):
        return None if _carries_secret(proof, headers) else CREDENTIALS_INVALID
    if isinstance(proof, Basic):
        return None if _carries_basic(proof, headers) else CREDENTIALS_INVALID
    return None if _is_signed(proof, headers, body, now_ms) else SIGNATURE_INVALID


def _carries_secret(proof: SecretHeader, headers: Mapping[str, str]) -> bool:
    given = headers.get(proof.header, "").encode("latin-1", "replace")
    return _any_equal(given, (proof.prefix.encode() + secret for secret in proof.secrets if secret))


def _carries_basic(proof: Basic, headers: Mapping[str, str]) -> bool:
    scheme, _, encoded = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        given = b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return False
    return _any_equal(given, (proof.username.encode() + b":" + secret for secret in proof.secrets if secret))


def _is_signed(proof: Signature, headers: Mapping[str, str], body: bytes, now_ms: int) -> bool:
    given = headers.get(proof.header, "")
    if not given.startswith(proof.prefix):
        return False
    try:
        encoded = given[len(proof.prefix) :].strip()
        signature = binascii.unhexlify(encoded) if proof.encoding == "hex" else b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return False
    signed = body
    if proof.timestamp_header:
        timestamp = headers.get(proof.timestamp_header, "")
        if not _is_recent(timestamp, proof.tolerance_s, now_ms):
            return False
        before, after = proof.signed_text
        signed = (
            before.replace("{timestamp}", timestamp).encode() + body + after.replace("{timestamp}", timestamp).encode()
        )
    return _any_equal(signature, (hmac.digest(secret, signed, proof.algorithm) for secret in proof.secrets if secret))


def _is_recent(timestamp: str, tolerance_s: int, now_ms: int) -> bool:
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 16):
        return False
    at = int(timestamp)
    at_s = at // 1000 if at >= _MILLISECONDS_FROM else at
    return abs(now_ms // 1000 - at_s) <= tolerance_s  # whole seconds on both sides, as senders count


def _any_equal(given: bytes, expected: Iterable[bytes]) -> bool:
    # Every secret is compared, also after a match: how long it takes says nothing about which one fits.
    found = False
    for candidate in expected:
        found |= hmac.compare_digest(given, candidate)
    return found
