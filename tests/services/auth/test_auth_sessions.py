"""The life of a session: refresh tokens work once, and what gives away a thief."""

import asyncio

import jwt
import pytest
from millrace.auth.v1 import account_pb2

from chassis.errors import Unauthenticated
from services.auth.sessions import Sessions
from tests.services.auth.running import Auth

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_refresh_token_gives_a_new_pair_for_the_same_session(auth: Auth) -> None:
    first = (await auth.sign_up()).tokens
    second = await auth.refresh(first.refresh_token)
    assert second.refresh_token != first.refresh_token
    claims = [jwt.decode(t.access_token, options={"verify_signature": False}) for t in (first, second)]
    assert claims[0]["sid"] == claims[1]["sid"]


async def test_a_refresh_token_used_twice_ends_the_session_with_all_its_tokens(auth: Auth) -> None:
    first = (await auth.sign_up()).tokens
    second = await auth.refresh(first.refresh_token)
    with pytest.raises(Unauthenticated) as refused:
        await auth.refresh(first.refresh_token)
    assert refused.value.reason == "REFRESH_REFUSED"
    with pytest.raises(Unauthenticated):
        await auth.refresh(second.refresh_token)


async def test_of_two_uses_at_the_same_moment_one_wins_and_the_session_ends(auth: Auth) -> None:
    token = (await auth.sign_up()).tokens.refresh_token
    answers = await asyncio.gather(*(auth.refresh(token) for _ in range(4)), return_exceptions=True)
    won = [answer for answer in answers if isinstance(answer, account_pb2.Tokens)]
    assert len(won) == 1
    with pytest.raises(Unauthenticated):
        await auth.refresh(won[0].refresh_token)


async def test_another_session_of_the_same_person_goes_on(auth: Auth) -> None:
    answer = await auth.sign_up()
    other = await auth.accounts.SignIn(
        account_pb2.SignInRequest(email=answer.user.email, password="correct horse battery")
    )
    await auth.accounts.SignOut(account_pb2.SignOutRequest(refresh_token=answer.tokens.refresh_token))
    assert (await auth.refresh(other.tokens.refresh_token)).refresh_token


async def test_signing_out_ends_the_session_with_any_of_its_tokens_and_can_be_repeated(auth: Auth) -> None:
    first = (await auth.sign_up()).tokens
    second = await auth.refresh(first.refresh_token)
    for _ in range(2):
        await auth.accounts.SignOut(account_pb2.SignOutRequest(refresh_token=first.refresh_token))
    with pytest.raises(Unauthenticated):
        await auth.refresh(second.refresh_token)


@pytest.mark.parametrize("token", ["unknown", "\0", "x" * 512])
async def test_signing_out_with_an_unknown_token_succeeds_and_refreshing_with_it_does_not(
    auth: Auth, token: str
) -> None:
    await auth.accounts.SignOut(account_pb2.SignOutRequest(refresh_token=token))
    with pytest.raises(Unauthenticated):
        await auth.refresh(token)


async def test_an_access_token_is_no_refresh_token(auth: Auth) -> None:
    tokens = (await auth.sign_up()).tokens
    with pytest.raises(Unauthenticated):
        await auth.refresh(tokens.access_token[-512:])


async def test_a_session_lasts_30_days_after_its_last_refresh(auth: Auth) -> None:
    token = (await auth.sign_up()).tokens.refresh_token
    for _ in range(3):
        auth.clock.advance(29 * 86_400)
        token = (await auth.refresh(token)).refresh_token
    auth.clock.advance(30 * 86_400 + 1)
    with pytest.raises(Unauthenticated):
        await auth.refresh(token)


async def test_expired_sessions_are_forgotten_a_week_later_and_their_tokens_with_them(auth: Auth) -> None:
    await auth.sign_up()
    auth.clock.advance(40 * 86_400)
    kept = await auth.sign_up()
    sessions = Sessions(auth.database, None, None, auth.clock, None)  # type: ignore[arg-type]  # forgetting needs no more
    forgetting = asyncio.create_task(sessions.forget_old())
    async with asyncio.timeout(10):
        while await auth.database.fetchval("SELECT count(*) FROM auth.session") > 1:
            await asyncio.sleep(0.05)
    forgetting.cancel()
    assert await auth.database.fetchval("SELECT count(*) FROM auth.refresh_token") == 1
    assert (await auth.refresh(kept.tokens.refresh_token)).refresh_token
