"""The form of tokens: signed access tokens and opaque refresh tokens.

Decides: the claims of an access token, and what a refresh token is made of and stored as.
Leaves: the life of the session behind them to sessions.py, the signing key to signing_keys.py, checking access tokens
to whoever is called with one (by the published keys).
"""

import hashlib
import secrets
from collections.abc import Sequence
from uuid import UUID

import jwt
import msgspec

from services.auth.signing_keys import ALGORITHM, SigningKey

REFRESH_TOKEN_BYTES = 32


class TokenPair(msgspec.Struct, frozen=True):
    """What a signed-in person holds. Times are milliseconds since 1970."""

    access_token: str
    refresh_token: str
    access_expires_at_ms: int


class AccessTokens:
    """Issues access tokens in the name of this installation."""

    def __init__(self, key: SigningKey, issuer: str, audience: str, ttl_s: int) -> None:
        self._key, self._issuer, self._audience, self.ttl_s = key, issuer, audience, ttl_s

    def issue(self, user_id: UUID, session_id: UUID, project_ids: Sequence[UUID], now_ms: int) -> tuple[str, int]:
        """A token for a session, and when it expires (ms since 1970). The first project is the default one."""
        issued_at = now_ms // 1000
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(user_id),
            "sid": str(session_id),
            "iat": issued_at,
            "exp": issued_at + self.ttl_s,
            "projects": [str(project_id) for project_id in project_ids],
        }
        headers = {"kid": self._key.kid, "typ": "at+jwt"}
        token = jwt.encode(claims, self._key.private, algorithm=ALGORITHM, headers=headers)
        return token, (issued_at + self.ttl_s) * 1000


def new_refresh_token() -> str:
    """256 random bits, safe in JSON and headers."""
    return secrets.token_urlsafe(REFRESH_TOKEN_BYTES)


def refresh_token_hash(token: str) -> bytes:
    """What is stored of a refresh token. It is random, so a plain SHA-256 cannot be searched back."""
    return hashlib.sha256(token.encode()).digest()
