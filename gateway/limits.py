"""How often one may try to sign up, sign in and refresh.

Decides: the limits by address, by account, and by both; and that nobody can lock another person out: the limit of an
account counts strangers alone, an address that signed in to it before has only the limit of the pair.
Leaves: counting to the cache port. When the cache is away this process counts by itself: the limits then hold for each
process, which is weaker but not open.
Holds: keys carry hashes of addresses and accounts, not the texts.
"""

import hashlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from chassis.cache import Cache, MemoryCache
from chassis.errors import Limited, Unavailable
from gateway.addresses import sender_key
from gateway.settings import GatewaySettings

_log = structlog.get_logger(__name__)
_FIVE_MINUTES_S = 300
_QUARTER_HOUR_S = 900
_HOUR_S = 3600
_KNOWN_FOR_S = 30 * 86_400

T = TypeVar("T")


class AuthLimits:
    """The limits of the auth routes. Each method counts one attempt. Raises: Limited TOO_MANY_ATTEMPTS."""

    def __init__(self, cache: Cache, settings: GatewaySettings) -> None:
        self._cache, self._settings = cache, settings
        self._own = MemoryCache()

    async def sign_up(self, address: str) -> None:
        """One attempt to make an account."""
        await self._count(f"sign-up:{_digest(sender_key(address))}", self._settings.sign_up_per_hour, _HOUR_S)

    async def refresh(self, address: str) -> None:
        """One exchange, or end, of a refresh token."""
        sender = _digest(sender_key(address))
        await self._count(f"refresh:{sender}", self._settings.sign_in_per_address * 5, _FIVE_MINUTES_S)

    async def sign_in(self, address: str, email: str) -> None:
        """One attempt to sign in to an account."""
        sender, account = _digest(sender_key(address)), _digest(email.strip().lower())
        await self._count(f"sign-in:{sender}", self._settings.sign_in_per_address, _FIVE_MINUTES_S)
        await self._count(f"sign-in:{sender}:{account}", self._settings.sign_in_per_pair, _FIVE_MINUTES_S)
        if await self._with(lambda cache: cache.get(_known_key(sender, account))) is None:
            await self._count(f"sign-in-to:{account}", self._settings.sign_in_per_account, _QUARTER_HOUR_S)

    async def signed_in(self, address: str, email: str) -> None:
        """Remembers that this address belongs to someone who knows the password."""
        key = _known_key(_digest(sender_key(address)), _digest(email.strip().lower()))
        await self._with(lambda cache: cache.set(key, b"1", _KNOWN_FOR_S))

    async def _count(self, key: str, most: int, window_s: int) -> None:
        count, resets_in_s = await self._with(lambda cache: cache.incr_window(f"limit:{key}", window_s))
        if count > most:
            raise Limited(
                "TOO_MANY_ATTEMPTS",
                "There were too many attempts. Wait as long as `Retry-After` says, then try again.",
                retry_after_s=resets_in_s,
            )

    async def _with(self, use: Callable[[Cache], Awaitable[T]]) -> T:
        try:
            return await use(self._cache)
        except Unavailable as away:
            _log.warning("limits_count_alone", reason=away.reason)
            return await use(self._own)


def _known_key(sender: str, account: str) -> str:
    return f"signed-in:{sender}:{account}"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()
