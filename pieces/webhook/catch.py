"""The trigger `catch` and its settings.

Decides: names, defaults and which settings belong together.
Leaves: what each of them does to the module's head in __init__.py.
"""

from typing import Annotated, Literal

import msgspec
from millrace_sdk import Dropdown, Input, ListOf, Piece, Secret, Text, trigger

Auth = Literal["none", "header", "basic", "hmac", "github"]
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

_AUTH_LABELS = {
    "none": "Nothing: everybody who knows the address",
    "header": "A shared secret in a header",
    "basic": "User and password",
    "hmac": "A signature (HMAC) over the body",
    "github": "GitHub's signature",
}


class CatchInput(Input):
    """How requests to this webhook are checked."""

    auth: Annotated[Auth, Dropdown("Check", "What a request must show to be let in.", labels=_AUTH_LABELS)] = "none"
    secret: Annotated[
        str | list[str],
        Secret(
            "Secret",
            "From a connection, such as {{connections.shop.secret}}; several while keys are rotated.",
            show_when={"auth": ["header", "hmac", "github"]},
        ),
    ] = ""
    header: Annotated[
        str,
        Text(
            "Header",
            "Carries the secret or the signature; x-webhook-secret or x-signature when empty.",
            max_length=100,
            show_when={"auth": ["header", "hmac"]},
        ),
    ] = ""
    username: Annotated[str, Text("User", show_when={"auth": ["basic"]})] = ""
    password: Annotated[str, Secret("Password", show_when={"auth": ["basic"]})] = ""
    algorithm: Annotated[Literal["sha256", "sha1", "sha512"], Dropdown("Algorithm", show_when={"auth": ["hmac"]})] = (
        "sha256"
    )
    encoding: Annotated[Literal["hex", "base64"], Dropdown("Encoding", show_when={"auth": ["hmac"]})] = "hex"
    prefix: Annotated[
        str,
        Text("Prefix", "Stands before the signature, as sha256= does.", max_length=50, show_when={"auth": ["hmac"]}),
    ] = ""
    idempotency_header: Annotated[
        str,
        Text(
            "Header of the duplicate key",
            "The sender's id of the event; x-github-delivery with GitHub.",
            max_length=100,
        ),
    ] = ""
    idempotency_path: Annotated[
        str,
        Text("Place of the duplicate key", "Where the sender's id stands in the request, as body.id.", max_length=200),
    ] = ""
    methods: Annotated[
        list[Method], ListOf("Methods", "Others are answered with 405; all when empty.", max_length=5)
    ] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        if self.auth in ("header", "hmac", "github") and not (self.secret and all(self.secret)):
            raise ValueError(f"with auth {self.auth} a secret is needed, and none may be empty")
        if self.auth == "basic" and not (self.username and self.password):
            raise ValueError("with auth basic a username and a password are needed")


catch = trigger(
    "catch",
    title="Catch a webhook",
    summary="Starts the flow with each HTTP request to its address.",
    input=CatchInput,
)

piece = Piece(
    name="webhook",
    version="0.1.0",
    title="Webhook",
    summary="Starts a flow when another system calls its address.",
    triggers=[catch],
)
