"""People, projects and tokens, as REST shows and takes them.

Decides: names of fields and examples. Leaves: rules beyond types to auth.
"""

from datetime import datetime
from typing import Annotated

import msgspec
from millrace.auth.v1 import account_pb2
from msgspec import Meta
from pydantic import Field

from gateway.schemas.common import Json, Model, example, time_view

_USER = {
    "id": "0197c1f0-6a1e-7c3a-9d5b-0f3c2f6d1e01",
    "email": "ada@example.org",
    "name": "Ada",
    "created_at": "2026-01-05T09:30:00Z",
}
_PROJECT = {"id": "0197c1f0-6a1e-7c3a-9d5b-0f3c2f6d1e02", "name": "Ada's project"}
_TOKENS = {
    "access_token": "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIuLi4ifQ.c2lnbmF0dXJl",
    "refresh_token": "b3BhcXVlLWFuZC1yYW5kb20tdGV4dC1vZi00My1jaGFycw",
    "access_expires_at": "2026-01-05T09:45:00Z",
}


class SignUpBody(msgspec.Struct, forbid_unknown_fields=True):
    """A new account."""

    email: Annotated[
        str, Meta(min_length=3, max_length=254, description="A working address.", examples=["ada@example.org"])
    ]
    password: Annotated[
        str, Meta(min_length=10, max_length=72, description="10 characters to 72 bytes.", examples=["a long password"])
    ]
    name: Annotated[
        str, Meta(min_length=1, max_length=100, description="How the product addresses them.", examples=["Ada"])
    ]


class SignInBody(msgspec.Struct, forbid_unknown_fields=True):
    """Credentials."""

    email: Annotated[
        str, Meta(min_length=1, max_length=254, description="Case does not matter.", examples=["ada@example.org"])
    ]
    password: Annotated[
        str, Meta(min_length=1, max_length=1024, description="The password.", examples=["a long password"])
    ]


class RefreshTokenBody(msgspec.Struct, forbid_unknown_fields=True):
    """A refresh token, to exchange or to end."""

    refresh_token: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=512,
            description="From the last answer that carried tokens.",
            examples=["b3BhcXVlLWFuZC1yYW5kb20tdGV4dC1vZi00My1jaGFycw"],
        ),
    ]


class User(Model):
    """A person."""

    id: str = Field(description="UUIDv7.")
    email: str = Field(description="Lower case.")
    name: str = Field(description="As the person wrote it.")
    created_at: datetime = Field(description="When they signed up.")


class Project(Model):
    """The border of all data; flows, runs and connections belong to exactly one."""

    id: str = Field(description="UUIDv7; send it as `X-Millrace-Project`.")
    name: str = Field(description="As people call it.")


class Tokens(Model):
    """A pair of tokens."""

    access_token: str = Field(description="Send it as `Authorization: Bearer`.")
    refresh_token: str = Field(description="Works once; see refresh.")
    access_expires_at: datetime = Field(description="When the access token stops working.")


class SignUpAnswer(Model):
    """The new person, signed in."""

    model_config = example({"user": _USER, "project": _PROJECT, "tokens": _TOKENS})
    user: User
    project: Project
    tokens: Tokens


class SignInAnswer(Model):
    """A new session."""

    model_config = example({"user": _USER, "tokens": _TOKENS})
    user: User
    tokens: Tokens


class RefreshAnswer(Model):
    """The next pair; both are new."""

    model_config = example({"tokens": _TOKENS})
    tokens: Tokens


class Me(Model):
    """The caller."""

    model_config = example({"user": _USER, "projects": [_PROJECT]})
    user: User
    projects: list[Project] = Field(description="Oldest first; the first counts when a request names none.")


class Jwk(Model):
    """A public key (RFC 8037)."""

    kty: str = Field(description="`OKP`.")
    crv: str = Field(description="`Ed25519`.")
    use: str = Field(description="`sig`.")
    alg: str = Field(description="`EdDSA`.")
    kid: str = Field(description="The key id in a token's header.")
    x: str = Field(description="The key, base64url.")


class Jwks(Model):
    """The keys that verify access tokens."""

    model_config = example(
        {
            "keys": [
                {
                    "kty": "OKP",
                    "crv": "Ed25519",
                    "use": "sig",
                    "alg": "EdDSA",
                    "kid": "5f1d2c3b4a596877",
                    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                }
            ]
        }
    )
    keys: list[Jwk]


def user_view(user: account_pb2.User) -> dict[str, Json]:
    """A `User`."""
    return {"id": user.id, "email": user.email, "name": user.name, "created_at": time_view(user.created_at)}


def project_view(project: account_pb2.Project) -> dict[str, Json]:
    """A `Project`."""
    return {"id": project.id, "name": project.name}


def tokens_view(tokens: account_pb2.Tokens) -> dict[str, Json]:
    """`Tokens`."""
    return {
        "access_token": tokens.access_token,
        "refresh_token": tokens.refresh_token,
        "access_expires_at": time_view(tokens.access_expires_at),
    }
