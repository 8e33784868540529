"""Access tokens: who a bearer token proves, and for how long it is believed.

Decides: a token is verified once with the published keys and then known until it expires (verifying costs 0.15 ms, a
look-up nothing); the token of an ended session is refused as soon as the word arrives; a key id never seen is looked up
at most every few seconds.
Leaves: issuing to auth; what a member may do to `permissions_of_member`, the one place that says it.
Holds: only EdDSA and only tokens of the type `at+jwt` with all claims; a refresh token or a stranger's JWT is none.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jwt
import msgspec
from millrace.auth.v1 import account_pb2, account_pb2_grpc
from millrace.options.v1 import options_pb2

from chassis.clock import Clock
from chassis.errors import NotFound, Unauthenticated
from chassis.identity import ANONYMOUS, Caller, acting_as
from chassis.revocation import EndedSessions

_MAX_TOKEN_LENGTH = 64 * 1024
_MAX_KNOWN = 10_000
_KEYS_AGAIN_AFTER_S = 10.0
_CLAIMS = ["exp", "iat", "sub", "sid", "iss", "aud", "projects"]


def permissions_of_member() -> frozenset[int]:
    """What a member of a project may do in it: for now everything a person can be given."""
    return frozenset(number for number in options_pb2.Permission.values() if number > options_pb2.PERMISSION_SELF)


_MEMBER = permissions_of_member()


class Verified(msgspec.Struct):
    """What a token proves. `callers` holds the caller made for each project that was asked for."""

    user_id: str
    session_id: str
    project_ids: list[str]
    expires_at_s: float
    callers: dict[str, Caller] = {}

    def caller(self, project_id: str) -> Caller:
        """The person, in a project of theirs; empty: their first. Raises: NotFound PROJECT_NOT_FOUND."""
        known = self.callers.get(project_id)
        if known is not None:
            return known
        if not project_id:
            made = Caller("user", self.user_id)
            if self.project_ids:
                made = Caller("user", self.user_id, self.project_ids[0], _MEMBER)
        elif project_id in self.project_ids:
            made = Caller("user", self.user_id, project_id, _MEMBER)
        else:
            raise NotFound("PROJECT_NOT_FOUND", "You are in no project with this id. GET /api/v1/me lists yours.")
        self.callers[project_id] = made
        return made


class AccessTokens:
    """Verifies access tokens. Its loop `follow_ended` hears of sessions that end."""

    def __init__(
        self,
        accounts: "account_pb2_grpc.AccountServiceAsyncStub",
        ended: EndedSessions,
        clock: Clock,
        issuer: str,
        audience: str,
    ) -> None:
        self._accounts, self._ended, self._clock = accounts, ended, clock
        self._issuer, self._audience = issuer, audience
        self._known: dict[str, Verified] = {}
        self._keys: dict[str, jwt.PyJWK] = {}
        self._keys_asked_at = float("-inf")
        self._keys_lock = asyncio.Lock()
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._ended_ids: dict[str, None] = {}

    async def verified(self, token: str) -> Verified:
        """What a token proves now. Raises: Unauthenticated TOKEN_INVALID, TOKEN_EXPIRED, SESSION_ENDED."""
        known = self._known.get(token)
        if known is None:
            known = await self._verify(token)
            self._remember(token, known)
        if known.expires_at_s <= self._clock.now_ms() / 1000:
            self._known.pop(token, None)
            raise Unauthenticated("TOKEN_EXPIRED", "The access token has expired. Refresh it, or sign in again.")
        return known

    @contextmanager
    def until_ended(self, session_id: str) -> Iterator[asyncio.Event]:
        """An event that is set when a session ends, for who holds a connection open."""
        event = asyncio.Event()
        self._watchers.setdefault(session_id, set()).add(event)
        try:
            yield event
        finally:
            watchers = self._watchers[session_id]
            watchers.discard(event)
            if not watchers:
                del self._watchers[session_id]

    async def follow_ended(self) -> None:
        """Forgets the tokens of sessions that end, for as long as the process runs."""
        async for session_id in self._ended.follow():
            if session_id is None:
                self._known.clear()  # each is verified again, its session's mark included
            else:
                self.forget(session_id)

    def forget(self, session_id: str) -> None:
        """Refuses the tokens of a session from now on, and tells who waits for its end."""
        self._ended_ids[session_id] = None
        if len(self._ended_ids) > _MAX_KNOWN:  # the oldest is refused by its mark, or has expired
            del self._ended_ids[next(iter(self._ended_ids))]
        for token in [token for token, known in self._known.items() if known.session_id == session_id]:
            del self._known[token]
        for event in self._watchers.get(session_id, ()):
            event.set()

    async def jwks(self) -> bytes:
        """The published keys, as auth gives them."""
        with acting_as(ANONYMOUS):
            answer = await self._accounts.GetPublicKeys(account_pb2.GetPublicKeysRequest())
        return answer.jwks

    async def _verify(self, token: str) -> Verified:
        claims = await self._claims(token)
        verified = Verified(
            user_id=str(claims["sub"]),
            session_id=str(claims["sid"]),
            project_ids=[str(project_id) for project_id in claims["projects"]],
            expires_at_s=float(claims["exp"]),
        )
        marked = await self._ended.has_ended(verified.session_id)
        if marked or verified.session_id in self._ended_ids:  # it may have ended while the mark was read
            raise Unauthenticated("SESSION_ENDED", "This session has ended. Sign in again.")
        return verified

    async def _claims(self, token: str) -> dict[str, Any]:
        try:
            if len(token) > _MAX_TOKEN_LENGTH:
                raise _invalid()
            header = jwt.get_unverified_header(token)
            key = await self._key(header.get("kid"))
            if key is None or header.get("typ") != "at+jwt":
                raise _invalid()
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=["EdDSA"],
                issuer=self._issuer,
                audience=self._audience,
                options={"require": _CLAIMS, "verify_exp": False, "verify_iat": False},  # by our clock, in `verified`
            )
        except (jwt.PyJWTError, UnicodeError, RecursionError):
            raise _invalid() from None
        if not isinstance(claims["projects"], list) or not isinstance(claims["exp"], int):
            raise _invalid()
        return claims

    async def _key(self, kid: object) -> jwt.PyJWK | None:
        if not isinstance(kid, str):
            return None
        if kid not in self._keys:
            async with self._keys_lock:
                if kid not in self._keys and self._clock.monotonic() - self._keys_asked_at > _KEYS_AGAIN_AFTER_S:
                    keys = jwt.PyJWKSet.from_json((await self.jwks()).decode())
                    self._keys = {key.key_id: key for key in keys.keys if key.key_id is not None}
                    self._keys_asked_at = self._clock.monotonic()
        return self._keys.get(kid)

    def _remember(self, token: str, verified: Verified) -> None:
        if len(self._known) >= _MAX_KNOWN:
            now_s = self._clock.now_ms() / 1000
            self._known = {token: known for token, known in self._known.items() if known.expires_at_s > now_s}
            while len(self._known) >= _MAX_KNOWN:
                del self._known[next(iter(self._known))]
        self._known[token] = verified


def _invalid() -> Unauthenticated:
    return Unauthenticated("TOKEN_INVALID", "This is not an access token of this installation. Sign in to get one.")
