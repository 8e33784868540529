"""Sessions that ended before their access tokens did.

Decides: how the end of a session reaches whoever accepts its tokens: a message at once, and a mark that lasts as long
as an access token may live, for those that start or connect later.
Leaves: when a session ends to auth; refusing its tokens to the gateway.
Holds: with the cache away a sign-out still succeeds; the access token then works until it expires, at most its short
life, and the log says so.
"""

from collections.abc import AsyncIterator

import structlog

from chassis.cache import Cache, Lagged
from chassis.errors import Unavailable

_log = structlog.get_logger(__name__)
_CHANNEL = "auth.session-ended"


class EndedSessions:
    """Announces and follows the ends of sessions, through the cache port."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def announce(self, session_id: str, mark_for_s: float) -> None:
        """Tells everyone that a session ended. `mark_for_s`: how long an access token may outlive it."""
        try:
            await self._cache.set(_key(session_id), b"1", mark_for_s)
            await self._cache.publish(_CHANNEL, session_id.encode())
        except Unavailable as away:
            _log.warning("session_end_not_announced", session_id=session_id, reason=away.reason)

    async def has_ended(self, session_id: str) -> bool:
        """Whether a session is marked as ended. False when the cache is away: tokens are short-lived."""
        try:
            return await self._cache.get(_key(session_id)) is not None
        except Unavailable:
            return False

    async def follow(self) -> AsyncIterator[str | None]:
        """The ids of sessions that end from now on; None when some were missed: then every mark counts anew."""
        async with self._cache.subscribe(_CHANNEL) as arriving:
            async for message in arriving:
                yield None if isinstance(message, Lagged) else message.decode()


def _key(session_id: str) -> str:
    return f"auth:session-ended:{session_id}"
