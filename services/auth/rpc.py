"""The servicers of auth: message in, one domain call, message out.

Decides: how values become messages. Leaves: everything else to accounts.py, sessions.py, projects.py and
connections.py.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp
from millrace.auth.v1 import account_pb2, account_pb2_grpc, connection_pb2, connection_pb2_grpc

from chassis.identity import current_caller, require_project
from services.auth.account_store import User
from services.auth.accounts import Accounts
from services.auth.connection_store import Connection
from services.auth.connections import Connections
from services.auth.projects import Project
from services.auth.sessions import Sessions
from services.auth.tokens import TokenPair

Context = grpc.aio.ServicerContext[Any, Any]


class AccountRpc(account_pb2_grpc.AccountServiceServicer):
    """People and tokens."""

    def __init__(self, accounts: Accounts, sessions: Sessions, jwks: bytes) -> None:
        self._accounts, self._sessions, self._jwks = accounts, sessions, jwks

    async def SignUp(self, request: account_pb2.SignUpRequest, context: Context) -> account_pb2.SignUpResponse:
        user, project, tokens = await self._accounts.sign_up(request.email, request.password, request.name)
        return account_pb2.SignUpResponse(user=_user(user), project=_projects([project])[0], tokens=_tokens(tokens))

    async def SignIn(self, request: account_pb2.SignInRequest, context: Context) -> account_pb2.SignInResponse:
        user, tokens = await self._accounts.sign_in(request.email, request.password)
        return account_pb2.SignInResponse(user=_user(user), tokens=_tokens(tokens))

    async def RefreshTokens(
        self, request: account_pb2.RefreshTokensRequest, context: Context
    ) -> account_pb2.RefreshTokensResponse:
        return account_pb2.RefreshTokensResponse(tokens=_tokens(await self._sessions.refresh(request.refresh_token)))

    async def SignOut(self, request: account_pb2.SignOutRequest, context: Context) -> account_pb2.SignOutResponse:
        await self._sessions.end(request.refresh_token)
        return account_pb2.SignOutResponse()

    async def GetMe(self, request: account_pb2.GetMeRequest, context: Context) -> account_pb2.GetMeResponse:
        user, projects = await self._accounts.me(current_caller().id)
        return account_pb2.GetMeResponse(user=_user(user), projects=_projects(projects))

    async def GetPublicKeys(
        self, request: account_pb2.GetPublicKeysRequest, context: Context
    ) -> account_pb2.GetPublicKeysResponse:
        return account_pb2.GetPublicKeysResponse(jwks=self._jwks)


class ConnectionRpc(connection_pb2_grpc.ConnectionServiceServicer):
    """Connections of the caller's project, and resolving them for runs."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def CreateConnection(
        self, request: connection_pb2.CreateConnectionRequest, context: Context
    ) -> connection_pb2.CreateConnectionResponse:
        created = await self._connections.create(_project(), request.name, request.kind, request.secret)
        return connection_pb2.CreateConnectionResponse(connection=_connection(created))

    async def GetConnection(
        self, request: connection_pb2.GetConnectionRequest, context: Context
    ) -> connection_pb2.GetConnectionResponse:
        found = await self._connections.get(_project(), UUID(request.connection_id))
        return connection_pb2.GetConnectionResponse(connection=_connection(found))

    async def ListConnections(
        self, request: connection_pb2.ListConnectionsRequest, context: Context
    ) -> connection_pb2.ListConnectionsResponse:
        page, following = await self._connections.page(_project(), request.page_size, request.page_token)
        return connection_pb2.ListConnectionsResponse(
            connections=[_connection(connection) for connection in page], next_page_token=following
        )

    async def ReplaceSecret(
        self, request: connection_pb2.ReplaceSecretRequest, context: Context
    ) -> connection_pb2.ReplaceSecretResponse:
        changed = await self._connections.replace_secret(_project(), UUID(request.connection_id), request.secret)
        return connection_pb2.ReplaceSecretResponse(connection=_connection(changed))

    async def DeleteConnection(
        self, request: connection_pb2.DeleteConnectionRequest, context: Context
    ) -> connection_pb2.DeleteConnectionResponse:
        await self._connections.delete(_project(), UUID(request.connection_id))
        return connection_pb2.DeleteConnectionResponse()

    async def ResolveConnections(
        self, request: connection_pb2.ResolveConnectionsRequest, context: Context
    ) -> connection_pb2.ResolveConnectionsResponse:
        resolved = await self._connections.resolve(UUID(request.project_id), request.names)
        return connection_pb2.ResolveConnectionsResponse(
            connections=[
                connection_pb2.ResolvedConnection(name=one.name, value=one.value, secrets=one.secrets)
                for one in resolved
            ]
        )


def _project() -> UUID:
    return UUID(require_project())


def _user(user: User) -> account_pb2.User:
    return account_pb2.User(id=str(user.id), email=user.email, name=user.name, created_at=_time(user.created_at))


def _projects(projects: Sequence[Project]) -> list[account_pb2.Project]:
    return [account_pb2.Project(id=str(project.id), name=project.name) for project in projects]


def _tokens(tokens: TokenPair) -> account_pb2.Tokens:
    expires_at = Timestamp(seconds=tokens.access_expires_at_ms // 1000)
    return account_pb2.Tokens(
        access_token=tokens.access_token, refresh_token=tokens.refresh_token, access_expires_at=expires_at
    )


def _connection(connection: Connection) -> connection_pb2.Connection:
    return connection_pb2.Connection(
        id=str(connection.id),
        name=connection.name,
        kind=connection_pb2.ConnectionKind.ValueType(connection.kind),
        created_at=_time(connection.created_at),
        updated_at=_time(connection.updated_at),
    )


def _time(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
