"""Secrets at rest: how they are sealed, and with which keys.

Decides: the sealed form (AES-256-GCM; a version byte, the id of the key, the nonce, ciphertext and tag), where keys
come from, and which keys are too weak to start with.
Leaves: what is sealed, and the words that bind a sealed value to its place, to connections.py and signing_keys.py.
Holds: a sealed value opens only with the words it was sealed for: moved to another row or project, it stays shut.
"""

import binascii
import re
import secrets
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chassis.errors import StartRefused
from chassis.settings import load_or_create_secret

_VERSION = 1
_NONCE_BYTES = 12
_KEY_BYTES = 32
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,32}")
_EMBEDDED_KEY_ID = "embedded"
_ADVICE = "Set MILLRACE_ENCRYPTION_KEYS to id:key, the key being 32 random bytes in base64 (openssl rand -base64 32)."


class SealBrokenError(Exception):
    """A sealed value does not open: its key is not in the keyring, or it was altered or moved."""


class Keyring:
    """The keys of an installation: the first one seals, all of them open."""

    def __init__(self, keys: Sequence[tuple[str, bytes]]) -> None:
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys}
        self._current = keys[0][0]

    def seal(self, plain: bytes, bound_to: str) -> bytes:
        """Encrypts with the current key; opens again only with the same `bound_to`."""
        key_id = self._current.encode()
        header = bytes((_VERSION, len(key_id))) + key_id
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return header + nonce + self._ciphers[self._current].encrypt(nonce, plain, header + bound_to.encode())

    def open(self, sealed: bytes, bound_to: str) -> bytes:
        """The plain bytes of a sealed value. Raises: SealBrokenError."""
        if len(sealed) < 2 or sealed[0] != _VERSION:
            raise SealBrokenError("It is not sealed in a form that this release knows.")
        header_end = 2 + sealed[1]
        key_id = sealed[2:header_end].decode("ascii", "replace")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise SealBrokenError(f"It is sealed with the encryption key {key_id!r}, which is not in the keyring.")
        nonce, ciphertext = sealed[header_end : header_end + _NONCE_BYTES], sealed[header_end + _NONCE_BYTES :]
        try:
            return cipher.decrypt(nonce, ciphertext, sealed[:header_end] + bound_to.encode())
        except (InvalidTag, ValueError) as error:
            raise SealBrokenError(f"It was altered, moved, or sealed with another key named {key_id!r}.") from error


def load_keyring(keys_text: str, home: Path, *, embedded: bool) -> Keyring:
    """The keys that the operator set; in embedded mode also the one kept in `home/secrets`, made when none is set.

    Raises: StartRefused when a key is missing outside of embedded mode, malformed or weak.
    """
    keys = parse_keys(keys_text)
    own = home / "secrets" / "encryption.key"
    if embedded and (not keys or own.exists()) and _EMBEDDED_KEY_ID not in dict(keys):
        keys.append((_EMBEDDED_KEY_ID, load_or_create_secret(own, _KEY_BYTES)))
    if not keys:
        raise StartRefused(f"No encryption key is set, and connections cannot be stored without one. {_ADVICE}")
    return Keyring(keys)


def parse_keys(text: str) -> list[tuple[str, bytes]]:
    """Keys out of `id:base64,id:base64`. Raises: StartRefused; the message never repeats key material."""
    keys: list[tuple[str, bytes]] = []
    for number, entry in enumerate(filter(None, (part.strip() for part in text.split(","))), start=1):
        key_id, colon, encoded = entry.partition(":")
        if not colon or not _KEY_ID.fullmatch(key_id):
            raise StartRefused(f"Encryption key number {number} has no id of letters, digits, '.', '_', '-'. {_ADVICE}")
        try:
            key = b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != _KEY_BYTES or len(set(key)) < 10:
            raise StartRefused(f"The encryption key {key_id!r} is malformed or too weak. {_ADVICE}")
        if key_id in dict(keys):
            raise StartRefused(f"Two encryption keys are called {key_id!r}. Give each its own id.")
        keys.append((key_id, key))
    return keys
