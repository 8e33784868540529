"""Auth, running for real: its own database in the embedded PostgreSQL, called over the in-process channel."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from millrace.auth.v1 import account_pb2, account_pb2_grpc, connection_pb2_grpc
from millrace.options.v1 import options_pb2
from pydantic import SecretStr

from chassis.clock import ManualClock
from chassis.database import Database
from chassis.identity import ANONYMOUS, Caller, service_caller
from chassis.ids import new_text_id
from chassis.lifecycle import Service, serving
from services.auth.service import build
from services.auth.settings import AuthSettings

EVERYTHING = frozenset(range(options_pb2.PERMISSION_SELF + 1, len(options_pb2.Permission.values())))
PASSWORD = "correct horse battery"


def auth_settings(home: Path, url: str) -> AuthSettings:
    return AuthSettings(
        home=home,
        database_url=url,
        internal_key=SecretStr("an internal key of tests, 0123456789"),
        encryption_keys=SecretStr("k1:MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY="),
        auth_bcrypt_cost=4,
    )


@dataclass
class Auth:
    """A running auth and what a test needs to talk to it."""

    accounts: "account_pb2_grpc.AccountServiceAsyncStub"
    connections: "connection_pb2_grpc.ConnectionServiceAsyncStub"
    as_service: "connection_pb2_grpc.ConnectionServiceAsyncStub"
    database: Database
    clock: ManualClock

    async def sign_up(self, email: str = "", password: str = PASSWORD) -> account_pb2.SignUpResponse:
        email = email or f"{new_text_id()}@example.org"
        return await self.accounts.SignUp(account_pb2.SignUpRequest(email=email, password=password, name="Ada"))

    async def refresh(self, token: str) -> account_pb2.Tokens:
        return (await self.accounts.RefreshTokens(account_pb2.RefreshTokensRequest(refresh_token=token))).tokens


def member(project_id: str = "") -> Caller:
    """Somebody who may do everything in a project."""
    return Caller("user", new_text_id(), project_id or new_text_id(), EVERYTHING)


@asynccontextmanager
async def running_auth(home: Path, url: str) -> AsyncIterator[Auth]:
    """Auth over a database, with a clock that the test turns."""
    clock = ManualClock()
    services = [Service(build, auth_settings(home, url))]
    async with serving(services, clock=clock, listen=False) as process, Database(url) as database:
        anonymous = process.channel("auth", ANONYMOUS)
        own = process.channel("auth", service_caller("executor"))
        yield Auth(
            accounts=account_pb2_grpc.AccountServiceStub(anonymous),
            connections=connection_pb2_grpc.ConnectionServiceStub(anonymous),
            as_service=connection_pb2_grpc.ConnectionServiceStub(own),
            database=database,
            clock=clock,
        )
