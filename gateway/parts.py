"""What the routes stand on, made once by service.py, and who is calling.

Decides: where a request carries its proof (`Authorization: Bearer`) and its project (`X-Millrace-Project`, else the
first of the person's projects).
Leaves: whether the proof is good to tokens.py.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase

from chassis.clock import Clock
from chassis.errors import Unauthenticated
from chassis.identity import Caller
from chassis.telemetry import Metrics
from gateway.addresses import Senders
from gateway.limits import AuthLimits
from gateway.readiness import Readiness
from gateway.settings import GatewaySettings
from gateway.stubs import Stubs
from gateway.tokens import AccessTokens

PROJECT_HEADER = "x-millrace-project"
SECURITY_SCHEME = "accessToken"


@dataclass(frozen=True)
class Parts:
    """Everything a route may use."""

    settings: GatewaySettings
    stubs: Stubs
    tokens: AccessTokens
    limits: AuthLimits
    senders: Senders
    readiness: Readiness
    clock: Clock
    metrics: Metrics


def parts(request: Request) -> Parts:
    """The parts of the application that serves a request."""
    made: Parts = request.app.state.parts
    return made


async def caller_of(request: Request) -> Caller:
    """Who makes a request, and in which project. Raises: Unauthenticated; NotFound PROJECT_NOT_FOUND."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated(
            "SIGN_IN_FIRST", "This needs a signed-in caller. Send the access token as `Authorization: Bearer`."
        )
    verified = await parts(request).tokens.verified(token.strip())
    return verified.caller(request.headers.get(PROJECT_HEADER, ""))


class BearerToken(SecurityBase):
    """Proves who calls, by the access token of the request. Documented as a bearer scheme in OpenAPI."""

    def __init__(self) -> None:
        self.scheme_name = SECURITY_SCHEME
        self.model = HTTPBearerModel(
            bearerFormat="JWT", description="An access token from sign-up, sign-in or refresh."
        )

    async def __call__(self, request: Request) -> Caller:
        """As `caller_of`."""
        return await caller_of(request)


SignedIn = Annotated[Caller, Depends(BearerToken())]
