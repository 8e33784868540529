"""Sessions: the life of being signed in.

Decides: a refresh token works once and is replaced; a second use means that someone else has it, and ends the session;
a session lasts as long as it is refreshed in time. An ended session is announced, so that its access tokens stop too.
Leaves: the form of tokens to tokens.py, who may open a session to accounts.py.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog

from chassis.clock import Clock
from chassis.database import Database, Pooled
from chassis.errors import Unauthenticated, Unavailable
from chassis.ids import new_id
from chassis.revocation import EndedSessions
from services.auth import projects, session_store
from services.auth.tokens import AccessTokens, TokenPair, new_refresh_token, refresh_token_hash

_log = structlog.get_logger(__name__)
_KEEP_ENDED = timedelta(days=7)
_FORGET_EVERY_S = 3600


class Sessions:
    """Opens, continues and ends sessions."""

    def __init__(
        self, database: Database, tokens: AccessTokens, ended: EndedSessions, clock: Clock, ttl: timedelta
    ) -> None:
        self._database, self._tokens, self._ended, self._clock, self._ttl = database, tokens, ended, clock, ttl

    def now(self) -> datetime:
        """The wall time, as sessions see it."""
        return datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)

    async def open(self, connection: Pooled, user_id: UUID) -> TokenPair:
        """A new session of a person, in the caller's transaction."""
        session_id, refresh_token, now = new_id(), new_refresh_token(), self.now()
        await session_store.open_session(
            connection, session_id, user_id, refresh_token_hash(refresh_token), now, now + self._ttl
        )
        return await self._pair(connection, user_id, session_id, refresh_token)

    async def refresh(self, refresh_token: str) -> TokenPair:
        """The next pair of tokens. Raises: Unauthenticated REFRESH_REFUSED; a spent token also ends its session."""
        token_hash, now = refresh_token_hash(refresh_token), self.now()
        async with self._database.transaction() as connection:
            session_id = await session_store.spend_token(connection, token_hash, now)
            if session_id is not None:
                user_id = await session_store.extend_session(connection, session_id, now, now + self._ttl)
                if user_id is not None:
                    following = new_refresh_token()
                    await session_store.add_token(connection, session_id, refresh_token_hash(following), now)
                    return await self._pair(connection, user_id, session_id, following)
        if session_id is None:
            await self._end(token_hash, now, "a refresh token was used twice")
        raise Unauthenticated(
            "REFRESH_REFUSED", "This refresh token is unknown, spent or expired, or its session ended. Sign in again."
        )

    async def end(self, refresh_token: str) -> None:
        """Ends the session of a refresh token; nothing happens when there is none."""
        await self._end(refresh_token_hash(refresh_token), self.now(), "signed out")

    async def _end(self, token_hash: bytes, now: datetime, reason: str) -> None:
        session_id = await session_store.end_session_of(self._database, token_hash, now, reason)
        if session_id is not None:
            _log.info("session_ended", session_id=str(session_id), reason=reason)
            await self._ended.announce(str(session_id), self._tokens.ttl_s)

    async def _pair(self, connection: Pooled, user_id: UUID, session_id: UUID, refresh_token: str) -> TokenPair:
        memberships = await projects.of_user(connection, user_id)
        access_token, expires_at_ms = self._tokens.issue(
            user_id, session_id, [project.id for project in memberships], self._clock.now_ms()
        )
        return TokenPair(access_token, refresh_token, expires_at_ms)

    async def forget_old(self) -> None:
        """Deletes sessions that expired a week ago or earlier, for as long as the process runs."""
        while True:
            try:
                more = await session_store.delete_old(self._database, self.now() - _KEEP_ENDED)
            except Unavailable as away:
                _log.info("old_sessions_kept", reason=away.reason)
                more = 0
            await asyncio.sleep(1 if more else _FORGET_EVERY_S)
