"""Signing up, in and out, and who one is.

Decides: which attempts are limited, and the form of the answers. Leaves: the rest to auth, limits to limits.py.
"""

from fastapi import APIRouter, Request, Response
from millrace.auth.v1 import account_pb2

from chassis.identity import ANONYMOUS, acting_as
from gateway.answers import json_answer, no_content
from gateway.bodies import read_json
from gateway.openapi import json_body
from gateway.parts import SignedIn, parts
from gateway.refusals import refusals
from gateway.schemas import auth as schemas

router = APIRouter(prefix="/api/v1", tags=["auth"])
keys_router = APIRouter(tags=["auth"])


@router.post(
    "/auth/sign-up",
    status_code=201,
    summary="Sign up",
    response_model=schemas.SignUpAnswer,
    responses=refusals("EMAIL_TAKEN", "TOO_MANY_ATTEMPTS", body=True, public=True),
    openapi_extra=json_body(schemas.SignUpBody),
)
async def sign_up(request: Request) -> Response:
    """Creates a person with a project of their own, and signs them in."""
    body = await read_json(request, schemas.SignUpBody)
    desk = parts(request)
    await desk.limits.sign_up(desk.senders.address(request.scope))
    with acting_as(ANONYMOUS):
        answer = await desk.stubs.accounts.SignUp(
            account_pb2.SignUpRequest(email=body.email, password=body.password, name=body.name)
        )
    view = {
        "user": schemas.user_view(answer.user),
        "project": schemas.project_view(answer.project),
        "tokens": schemas.tokens_view(answer.tokens),
    }
    return json_answer(view, 201)


@router.post(
    "/auth/sign-in",
    summary="Sign in",
    response_model=schemas.SignInAnswer,
    responses=refusals("WRONG_CREDENTIALS", "TOO_MANY_ATTEMPTS", body=True, public=True),
    openapi_extra=json_body(schemas.SignInBody),
)
async def sign_in(request: Request) -> Response:
    """Checks a password and opens a session. An unknown address and a wrong password get the same answer."""
    body = await read_json(request, schemas.SignInBody)
    desk = parts(request)
    address = desk.senders.address(request.scope)
    await desk.limits.sign_in(address, body.email)
    with acting_as(ANONYMOUS):
        answer = await desk.stubs.accounts.SignIn(account_pb2.SignInRequest(email=body.email, password=body.password))
    await desk.limits.signed_in(address, body.email)
    return json_answer({"user": schemas.user_view(answer.user), "tokens": schemas.tokens_view(answer.tokens)})


@router.post(
    "/auth/refresh",
    summary="Refresh the tokens",
    response_model=schemas.RefreshAnswer,
    responses=refusals("REFRESH_REFUSED", "TOO_MANY_ATTEMPTS", body=True, public=True),
    openapi_extra=json_body(schemas.RefreshTokenBody),
)
async def refresh(request: Request) -> Response:
    """Exchanges a refresh token for a new pair. Each works once; a second use ends the whole session."""
    body = await read_json(request, schemas.RefreshTokenBody)
    desk = parts(request)
    await desk.limits.refresh(desk.senders.address(request.scope))
    with acting_as(ANONYMOUS):
        answer = await desk.stubs.accounts.RefreshTokens(
            account_pb2.RefreshTokensRequest(refresh_token=body.refresh_token)
        )
    return json_answer({"tokens": schemas.tokens_view(answer.tokens)})


@router.post(
    "/auth/sign-out",
    status_code=204,
    summary="Sign out",
    responses=refusals("TOO_MANY_ATTEMPTS", body=True, public=True),
    openapi_extra=json_body(schemas.RefreshTokenBody),
)
async def sign_out(request: Request) -> Response:
    """Ends the session of a refresh token; its access tokens stop within seconds. An unknown one succeeds as well."""
    body = await read_json(request, schemas.RefreshTokenBody)
    desk = parts(request)
    await desk.limits.refresh(desk.senders.address(request.scope))
    with acting_as(ANONYMOUS):
        await desk.stubs.accounts.SignOut(account_pb2.SignOutRequest(refresh_token=body.refresh_token))
    return no_content()


@router.get("/me", summary="Who am I", response_model=schemas.Me, responses=refusals())
async def me(request: Request, caller: SignedIn) -> Response:
    """The signed-in person and their projects."""
    with acting_as(caller):
        answer = await parts(request).stubs.accounts.GetMe(account_pb2.GetMeRequest())
    projects = [schemas.project_view(project) for project in answer.projects]
    return json_answer({"user": schemas.user_view(answer.user), "projects": projects})


@keys_router.get(
    "/.well-known/jwks.json",
    summary="Public keys",
    response_model=schemas.Jwks,
    responses=refusals(public=True),
)
async def public_keys(request: Request) -> Response:
    """The keys that verify access tokens (RFC 7517)."""
    jwks = await parts(request).tokens.jwks()
    return Response(jwks, media_type="application/json", headers={"cache-control": "public, max-age=300"})
