"""Signing up and in: what it gives, and what it keeps to itself."""

import time

import jwt
import pytest
from millrace.auth.v1 import account_pb2

from chassis.errors import Conflict, Invalid, Unauthenticated
from chassis.identity import Caller, acting_as
from services.auth.passwords import Passwords
from tests.services.auth.running import PASSWORD, Auth

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def sign_in(auth: Auth, email: str, password: str) -> account_pb2.SignInResponse:
    return await auth.accounts.SignIn(account_pb2.SignInRequest(email=email, password=password))


async def test_signing_up_gives_a_user_a_project_of_their_own_and_tokens(auth: Auth) -> None:
    answer = await auth.accounts.SignUp(
        account_pb2.SignUpRequest(email="  Grace@Example.ORG ", password=PASSWORD, name="Grace")
    )
    assert (answer.user.email, answer.user.name) == ("grace@example.org", "Grace")
    assert answer.project.name == "Grace's project"
    claims = jwt.decode(answer.tokens.access_token, options={"verify_signature": False})
    assert claims["sub"] == answer.user.id
    assert claims["projects"] == [answer.project.id]
    assert claims["exp"] - claims["iat"] == 900
    assert answer.tokens.access_expires_at.seconds == claims["exp"]


async def test_the_published_keys_verify_the_access_token_and_no_other_algorithm_does(auth: Auth) -> None:
    token = (await auth.sign_up()).tokens.access_token
    document = (await auth.accounts.GetPublicKeys(account_pb2.GetPublicKeysRequest())).jwks.decode()
    assert '"d"' not in document
    key = next(iter(jwt.PyJWKSet.from_json(document).keys))
    assert jwt.get_unverified_header(token) == {"alg": "EdDSA", "kid": key.key_id, "typ": "at+jwt"}
    assert jwt.decode(
        token,
        key,
        algorithms=["EdDSA"],
        audience="millrace-api",
        issuer="millrace",
        options={"verify_exp": False, "verify_iat": False},  # the service's clock stands in the past
    )


async def test_an_address_is_taken_whatever_its_case(auth: Auth) -> None:
    await auth.sign_up("twice@example.org")
    with pytest.raises(Conflict) as refused:
        await auth.sign_up("TWICE@example.org")
    assert refused.value.reason == "EMAIL_TAKEN"


@pytest.mark.parametrize(
    ("email", "name", "field"),
    [
        ("no-at-sign", "Ada", "email"),
        ("a@b@example.org", "Ada", "email"),
        ("sp ace@example.org", "Ada", "email"),
        ("nul\0@example.org", "Ada", "email"),
        ("@example.org", "Ada", "email"),
        ("ada@.", "Ada", "email"),
        ("ok@example.org", "   ", "name"),
        ("ok@example.org", "Ada\0", "name"),
    ],
)
async def test_what_cannot_be_an_address_or_a_name_is_a_fault_of_its_field(
    auth: Auth, email: str, name: str, field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        await auth.accounts.SignUp(account_pb2.SignUpRequest(email=email, password=PASSWORD, name=name))
    assert [fault.field for fault in refused.value.faults] == [field]


@pytest.mark.parametrize("password", ["short", "x" * 73, "ü" * 37])
async def test_a_password_is_10_characters_to_72_bytes(auth: Auth, password: str) -> None:
    with pytest.raises(Invalid) as refused:
        await auth.sign_up(password=password)
    assert refused.value.faults[0].field == "password"
    assert password not in str(refused.value)


@pytest.mark.parametrize("password", ["x" * 72, "nul\0inside it", "pässwörd mit Umlauten"])
async def test_odd_passwords_work(auth: Auth, password: str) -> None:
    email = (await auth.sign_up(password=password)).user.email
    assert (await sign_in(auth, email.upper(), password)).user.email == email


async def test_a_wrong_password_and_an_unknown_address_get_the_same_answer(auth: Auth) -> None:
    email = (await auth.sign_up()).user.email
    told = []
    for address, password in [(email, "not the password"), ("nobody@example.org", PASSWORD), ("\0", PASSWORD)]:
        with pytest.raises(Unauthenticated) as refused:
            await sign_in(auth, address, password)
        told.append((refused.value.reason, refused.value.message, refused.value.details))
    assert told == [("WRONG_CREDENTIALS", "Address or password is wrong.", {})] * 3


async def test_only_the_whole_password_counts_beyond_what_bcrypt_reads(auth: Auth) -> None:
    email = (await auth.sign_up(password="x" * 72)).user.email
    with pytest.raises(Unauthenticated):
        await sign_in(auth, email, "x" * 73)


async def test_a_check_for_nobody_costs_as_much_as_a_real_one() -> None:
    async with Passwords(cost=6) as passwords:
        stored = await passwords.hashed(PASSWORD)
        started = time.process_time()
        assert await passwords.matches(PASSWORD, stored)
        middle = time.process_time()
        assert not await passwords.matches("nobody has this password", None)
        real, nobody = middle - started, time.process_time() - middle
    # Both hash once: the ratio is near 1. Missing the hash for nobody would make it more than 20.
    assert real / nobody < 10


async def test_the_database_holds_no_password_and_no_token(auth: Auth) -> None:
    answer = await auth.sign_up("dump@example.org")
    rows = [
        str(row)
        for table in ('auth."user"', "auth.session", "auth.refresh_token", "auth.signing_key")
        for row in await auth.database.fetch(f"SELECT * FROM {table}")
    ]
    for secret in (PASSWORD, answer.tokens.refresh_token, answer.tokens.access_token):
        assert not any(secret in row for row in rows)


async def test_me_is_the_caller_and_their_projects(auth: Auth) -> None:
    answer = await auth.sign_up()
    with acting_as(Caller("user", answer.user.id)):
        me = await auth.accounts.GetMe(account_pb2.GetMeRequest())
    assert (me.user, list(me.projects)) == (answer.user, [answer.project])


async def test_me_needs_a_person(auth: Auth) -> None:
    with pytest.raises(Unauthenticated):
        await auth.accounts.GetMe(account_pb2.GetMeRequest())
