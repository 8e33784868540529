"""The key that signs access tokens, and the published half of it.

Decides: an Ed25519 key is made at the first start of an installation and kept sealed in the database; all replicas
share it; every key that is not deleted stays published, so that tokens signed before a rotation go on working.
Leaves: how keys are sealed to encryption.py, the tokens to tokens.py.
"""

import secrets
from base64 import urlsafe_b64encode
from datetime import datetime

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chassis.database import Database
from chassis.errors import StartRefused
from services.auth.encryption import Keyring, SealBrokenError

ALGORITHM = "EdDSA"

# Unique index signing_key_current (partial: retired_at IS NULL) lets one of several starting replicas win.
INSERT_KEY = """INSERT INTO auth.signing_key (kid, private_key, public_key, created_at)
    VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING"""
# An installation has a handful of keys in its life.
ALL_KEYS = """SELECT kid, private_key, public_key, retired_at FROM auth.signing_key
    ORDER BY created_at DESC LIMIT 20"""


class SigningKey(msgspec.Struct, frozen=True):
    """The key in use."""

    kid: str
    private: Ed25519PrivateKey


class SigningKeys(msgspec.Struct, frozen=True):
    """The key in use, and the JWKS document (RFC 7517) of all that are published."""

    current: SigningKey
    jwks: bytes


async def load_signing_keys(database: Database, keyring: Keyring, at: datetime) -> SigningKeys:
    """The keys of this installation; the first one is made here. Raises: StartRefused when it cannot be opened."""
    rows = await database.fetch(ALL_KEYS)
    if all(row["retired_at"] is not None for row in rows):
        await database.execute(INSERT_KEY, *_new_key(keyring), at)
        rows = await database.fetch(ALL_KEYS)
    row = next(row for row in rows if row["retired_at"] is None)
    try:
        private = keyring.open(row["private_key"], _bound_to(row["kid"]))
    except SealBrokenError as broken:
        raise StartRefused(
            f"The key that signs access tokens cannot be opened. {broken} "
            "Set MILLRACE_ENCRYPTION_KEYS to the keys that this installation was used with."
        ) from broken
    current = SigningKey(row["kid"], Ed25519PrivateKey.from_private_bytes(private))
    jwks = {"keys": [_jwk(row["kid"], row["public_key"]) for row in rows]}
    return SigningKeys(current, msgspec.json.encode(jwks))


def _new_key(keyring: Keyring) -> tuple[str, bytes, bytes]:
    kid, private = secrets.token_hex(8), Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    sealed = keyring.seal(private.private_bytes_raw(), _bound_to(kid))
    return kid, sealed, public


def _bound_to(kid: str) -> str:
    return f"signing-key:{kid}"


def _jwk(kid: str, public: bytes) -> dict[str, str]:
    x = urlsafe_b64encode(public).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": ALGORITHM, "kid": kid, "x": x}
