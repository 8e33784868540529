"""Signing in over HTTP: tokens, their ends, and the limits on trying."""

import base64
import json
import time

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.gateway.running_gateway import PASSWORD, Person, RunningGateway


def refused(answer: httpx.Response, status: int, reason: str) -> dict[str, object]:
    """Checks that an answer is this problem, and returns it."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    problem: dict[str, object] = answer.json()
    assert problem["reason"] == reason
    assert problem["status"] == status
    return problem


def eventually_refused(person: Person) -> None:
    """The end of a session reaches the gateway within a moment."""
    until = time.monotonic() + 5
    while (answer := person.client.get("/api/v1/me")).status_code == 200:
        assert time.monotonic() < until
        time.sleep(0.02)
    refused(answer, 401, "SESSION_ENDED")


def test_sign_up_sign_in_and_who_am_i(gateway: RunningGateway, person: Person) -> None:
    answer = gateway.client().post("/api/v1/auth/sign-in", json={"email": person.email.upper(), "password": PASSWORD})
    assert answer.json()["user"]["id"] == person.user_id
    token = answer.json()["tokens"]["access_token"]
    me = gateway.client(authorization=f"bearer {token}").get("/api/v1/me").json()
    assert me["user"]["email"] == person.email
    assert [project["id"] for project in me["projects"]] == [person.project_id]


def test_refused_credentials_are_401_and_a_taken_address_409(gateway: RunningGateway, person: Person) -> None:
    client = gateway.client()
    wrong = client.post("/api/v1/auth/sign-in", json={"email": person.email, "password": "wrong"})
    unknown = client.post("/api/v1/auth/sign-in", json={"email": "nobody@example.org", "password": "wrong"})
    assert refused(wrong, 401, "WRONG_CREDENTIALS") == refused(unknown, 401, "WRONG_CREDENTIALS")
    again = {"email": person.email, "password": PASSWORD, "name": "Eve"}
    refused(client.post("/api/v1/auth/sign-up", json=again), 409, "EMAIL_TAKEN")


def test_faults_name_their_fields_and_never_repeat_a_password(gateway: RunningGateway) -> None:
    answer = gateway.client().post("/api/v1/auth/sign-up", json={"email": "x", "password": "hunter2", "nam": 1})
    problem = refused(answer, 422, "REQUEST_INVALID")
    faults = problem["faults"]
    assert isinstance(faults, list)
    assert {fault["field"] for fault in faults} == {"email", "password", "name", "nam"}
    assert "hunter2" not in answer.text


def test_a_refresh_token_works_once_and_its_second_use_ends_the_session_at_once(
    gateway: RunningGateway, person: Person
) -> None:
    client, spent = gateway.client(), {"refresh_token": person.refresh_token}
    fresh = client.post("/api/v1/auth/refresh", json=spent).json()["tokens"]
    assert person.client.get("/api/v1/me").status_code == 200
    refused(client.post("/api/v1/auth/refresh", json=spent), 401, "REFRESH_REFUSED")
    eventually_refused(person)
    refused(client.post("/api/v1/auth/refresh", json={"refresh_token": fresh["refresh_token"]}), 401, "REFRESH_REFUSED")


def test_signing_out_stops_the_access_token_within_a_moment(gateway: RunningGateway, person: Person) -> None:
    assert person.client.get("/api/v1/me").status_code == 200
    out = gateway.client().post("/api/v1/auth/sign-out", json={"refresh_token": person.refresh_token})
    assert (out.status_code, out.content) == (204, b"")
    eventually_refused(person)


def test_a_token_first_seen_after_its_session_ended_is_refused(gateway: RunningGateway, person: Person) -> None:
    gateway.client().post("/api/v1/auth/sign-out", json={"refresh_token": person.refresh_token})
    refused(person.client.get("/api/v1/me"), 401, "SESSION_ENDED")


def test_the_published_keys_verify_tokens(gateway: RunningGateway, person: Person) -> None:
    answer = gateway.client().get("/.well-known/jwks.json")
    key = jwt.PyJWKSet.from_dict(answer.json()).keys[0]
    claims = jwt.decode(person.access_token, key, algorithms=["EdDSA"], audience="millrace-api")
    assert claims["sub"] == person.user_id


def forged(person: Person) -> dict[str, str]:
    """Tokens that are none, by how they are wrong."""
    header, payload, signature = person.access_token.split(".")
    claims = jwt.decode(person.access_token, options={"verify_signature": False})
    head = jwt.get_unverified_header(person.access_token)
    own = Ed25519PrivateKey.generate()

    def packed(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return {
        "another key, same kid": jwt.encode(claims, own, algorithm="EdDSA", headers=head),
        "another key, another kid": jwt.encode(claims, own, algorithm="EdDSA", headers={**head, "kid": "other"}),
        "algorithm none": f"{packed({**head, 'alg': 'none'})}.{payload}.",
        "HMAC with the public key as secret": jwt.encode(
            claims, "x" * 40, algorithm="HS256", headers={"kid": head["kid"], "typ": "at+jwt"}
        ),
        "changed claims": f"{header}.{packed({**claims, 'projects': ['x']})}.{signature}",
        "truncated signature": person.access_token[:-4],
        "no signature": f"{header}.{payload}",
        "a refresh token": person.refresh_token,
        "not base64": "a.b.c",
        "huge": "a" * 60_000,
        "deeply nested": f"{base64.urlsafe_b64encode(b'[' * 30_000).decode()}.e30.x",
        "a kid that is no text": f"{packed({**head, 'kid': ['x']})}.{payload}.{signature}",
    }


def test_what_is_no_access_token_is_refused(gateway: RunningGateway, person: Person) -> None:
    for how, token in forged(person).items():
        answer = gateway.client().get("/api/v1/me", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 401, how
        assert refused(answer, 401, "TOKEN_INVALID"), how
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("header", ["Bearer", "Basic YTpi", "Token x", "Bearer\tx"])
def test_without_a_bearer_token_one_is_asked_for(gateway: RunningGateway, header: str) -> None:
    refused(gateway.client().get("/api/v1/me", headers={"authorization": header}), 401, "SIGN_IN_FIRST")


def test_a_project_of_another_person_does_not_exist(gateway: RunningGateway, person: Person) -> None:
    other = gateway.person()
    for project in (other.project_id, "nonsense", "x" * 5000, person.project_id.upper()):
        answer = person.client.get("/api/v1/flows", headers={"x-millrace-project": project})
        refused(answer, 404, "PROJECT_NOT_FOUND")
    named = person.client.get("/api/v1/flows", headers={"x-millrace-project": person.project_id})
    assert named.status_code == 200


def test_guessing_one_password_from_one_address_is_limited_and_another_address_is_not(
    gateway: RunningGateway, person: Person
) -> None:
    guesser, wrong = gateway.client(), {"email": person.email, "password": "guess"}
    for _ in range(10):
        refused(guesser.post("/api/v1/auth/sign-in", json=wrong), 401, "WRONG_CREDENTIALS")
    answer = guesser.post("/api/v1/auth/sign-in", json=wrong)
    refused(answer, 429, "TOO_MANY_ATTEMPTS")
    assert 1 <= int(answer.headers["retry-after"]) <= 300
    right = {"email": person.email, "password": PASSWORD}
    assert gateway.client().post("/api/v1/auth/sign-in", json=right).status_code == 200


def test_a_flood_from_many_addresses_does_not_lock_the_owner_out(gateway: RunningGateway, person: Person) -> None:
    owner, right = gateway.client(), {"email": person.email, "password": PASSWORD}
    assert owner.post("/api/v1/auth/sign-in", json=right).status_code == 200
    with gateway.client() as flood:
        for number in range(101):
            sender = {"x-forwarded-for": f"192.0.2.{number}"}
            last = flood.post("/api/v1/auth/sign-in", json={**right, "password": "guess"}, headers=sender)
    refused(last, 429, "TOO_MANY_ATTEMPTS")
    refused(gateway.client().post("/api/v1/auth/sign-in", json=right), 429, "TOO_MANY_ATTEMPTS")
    assert owner.post("/api/v1/auth/sign-in", json=right).status_code == 200


def test_making_accounts_is_limited_by_address_and_a_network_of_ipv6_is_one_sender(gateway: RunningGateway) -> None:
    client, body = gateway.client(), {"email": "bad", "password": PASSWORD, "name": "x"}
    for number in range(61):
        sender = {"x-forwarded-for": f"2001:db8:1:2::{number:x}"}
        last = client.post("/api/v1/auth/sign-up", json=body, headers=sender)
    refused(last, 429, "TOO_MANY_ATTEMPTS")
    elsewhere = {"x-forwarded-for": "2001:db8:1:3::1"}
    again = client.post("/api/v1/auth/sign-up", json=body, headers=elsewhere)
    refused(again, 422, "SIGN_UP_INVALID")
