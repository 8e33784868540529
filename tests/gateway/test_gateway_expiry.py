"""What a token is worth as time passes: verified once, believed until it expires, keys looked up sparingly."""

import asyncio
from pathlib import Path

import jwt
import pytest
from millrace.auth.v1 import account_pb2

from chassis.cache import MemoryCache
from chassis.errors import Unauthenticated
from chassis.revocation import EndedSessions
from gateway.tokens import AccessTokens
from tests.services.auth.running import Auth, running_auth


class CountingAccounts:
    """Auth's published keys, counting how often they are asked for."""

    def __init__(self, auth: Auth) -> None:
        self._auth, self.asked = auth, 0

    async def GetPublicKeys(  # noqa: N802  # gRPC's name
        self, request: account_pb2.GetPublicKeysRequest
    ) -> account_pb2.GetPublicKeysResponse:
        self.asked += 1
        return await self._auth.accounts.GetPublicKeys(request)


async def test_a_token_is_believed_until_it_expires_and_the_keys_are_asked_for_once(
    tmp_path: Path, database_url: str
) -> None:
    async with running_auth(tmp_path, database_url) as auth:
        accounts, cache = CountingAccounts(auth), MemoryCache()
        tokens = AccessTokens(accounts, EndedSessions(cache), auth.clock, "millrace", "millrace-api")  # type: ignore[arg-type]  # one method is enough
        pairs = [(await auth.sign_up()).tokens for _ in range(3)]
        for pair in pairs:
            verified = await tokens.verified(pair.access_token)
            assert await tokens.verified(pair.access_token) is verified
        assert accounts.asked == 1

        auth.clock.advance(899)
        await tokens.verified(pairs[0].access_token)
        auth.clock.advance(2)
        for pair in pairs:
            with pytest.raises(Unauthenticated) as refused:
                await tokens.verified(pair.access_token)
            assert refused.value.reason == "TOKEN_EXPIRED"


async def test_a_flood_of_unknown_keys_asks_auth_once_in_a_while(tmp_path: Path, database_url: str) -> None:
    async with running_auth(tmp_path, database_url) as auth:
        accounts = CountingAccounts(auth)
        tokens = AccessTokens(accounts, EndedSessions(MemoryCache()), auth.clock, "millrace", "millrace-api")  # type: ignore[arg-type]  # one method is enough
        good = (await auth.sign_up()).tokens.access_token
        forged = "eyJhbGciOiJFZERTQSIsImtpZCI6Im90aGVyIiwidHlwIjoiYXQrand0In0." + good.split(".", 1)[1]
        for _ in range(20):
            with pytest.raises(Unauthenticated):
                await tokens.verified(forged)
        assert accounts.asked == 1
        auth.clock.advance(11)
        with pytest.raises(Unauthenticated):
            await tokens.verified(forged)
        assert accounts.asked == 2


async def test_another_audience_or_issuer_is_refused(tmp_path: Path, database_url: str) -> None:
    async with running_auth(tmp_path, database_url) as auth:
        good = (await auth.sign_up()).tokens.access_token
        for issuer, audience in (("other", "millrace-api"), ("millrace", "other")):
            tokens = AccessTokens(auth.accounts, EndedSessions(MemoryCache()), auth.clock, issuer, audience)
            with pytest.raises(Unauthenticated):
                await tokens.verified(good)


async def test_a_session_that_ends_while_its_token_is_verified_is_refused(tmp_path: Path, database_url: str) -> None:
    async with running_auth(tmp_path, database_url) as auth:
        reading, ended = asyncio.Event(), asyncio.Event()

        class SlowCache(MemoryCache):
            async def get(self, key: str) -> bytes | None:
                found = await super().get(key)
                reading.set()
                await ended.wait()
                return found

        tokens = AccessTokens(auth.accounts, EndedSessions(SlowCache()), auth.clock, "millrace", "millrace-api")
        good = (await auth.sign_up()).tokens.access_token
        verifying = asyncio.create_task(tokens.verified(good))
        await reading.wait()
        tokens.forget(jwt.decode(good, options={"verify_signature": False})["sid"])
        ended.set()
        with pytest.raises(Unauthenticated):
            await verifying
