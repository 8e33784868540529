"""Connections, as REST shows and takes them. A secret goes in and never comes out.

Decides: names of fields and examples. Leaves: rules beyond types to auth.
"""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from millrace.auth.v1 import connection_pb2
from msgspec import Meta
from pydantic import Field

from gateway.schemas.common import Json, Model, enum_views, example, time_view

_CONNECTION = {
    "id": "0197c1f0-6a1e-7c3a-9d5b-0f3c2f6d1e03",
    "name": "billing_api",
    "kind": "secret_text",
    "created_at": "2026-01-05T09:31:00Z",
    "updated_at": "2026-01-05T09:31:00Z",
}
_KINDS = enum_views(connection_pb2.ConnectionKind.DESCRIPTOR, "CONNECTION_KIND_")
KIND_NUMBERS = {word: number for number, word in _KINDS.items()}


Secret = Annotated[
    str, Meta(min_length=1, max_length=65536, description="The secret text, at most 64 KiB.", examples=["sk-example"])
]


class CreateConnectionBody(msgspec.Struct, forbid_unknown_fields=True):
    """A new connection."""

    name: Annotated[
        str,
        Meta(
            pattern="^[A-Za-z][A-Za-z0-9_]{0,63}$",
            description="What expressions call it: `connections.<name>.secret`.",
            examples=["billing_api"],
        ),
    ]
    secret: Secret
    kind: Annotated[Literal["secret_text"], Meta(description="The shape of the secret.")] = "secret_text"


class ReplaceSecretBody(msgspec.Struct, forbid_unknown_fields=True):
    """Another secret for a connection."""

    secret: Secret


class Connection(Model):
    """A connection without its secret."""

    model_config = example(_CONNECTION)
    id: str = Field(description="UUIDv7.")
    name: str = Field(description="Unique in the project.")
    kind: Literal["secret_text"] = Field(description="The shape of its secret.")
    created_at: datetime = Field(description="When it was created.")
    updated_at: datetime = Field(description="When the secret was last replaced.")


class ConnectionPage(Model):
    """A page of connections, newest first."""

    model_config = example({"connections": [_CONNECTION], "next_page_token": ""})
    connections: list[Connection]
    next_page_token: str = Field(description="Empty on the last page.")


def connection_view(connection: connection_pb2.Connection) -> dict[str, Json]:
    """A `Connection`."""
    return {
        "id": connection.id,
        "name": connection.name,
        "kind": _KINDS[connection.kind],
        "created_at": time_view(connection.created_at),
        "updated_at": time_view(connection.updated_at),
    }
