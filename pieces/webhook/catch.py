"""The trigger `catch` and its settings.

Decides: names, defaults and which settings belong together.
Leaves: what each of them does to the module's head in __init__.py.
"""

from typing import Annotated, Literal

import msgspec
from millrace_sdk import Dropdown, Input, ListOf, Number, Piece, Secret, Text, trigger

Auth = Literal["none", "header", "basic", "hmac", "github"]
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

_AUTH_LABELS = {
    "none": "Nothing: everybody who knows the address",
    "header": "A shared secret in a header",
    "basic": "User and password",
    "hmac": "A signature (HMAC) over the body",
    "github": "GitHub's signature",
}
_BODY_LABELS = {
    "auto": "What its content type says",
    "json": "JSON",
    "form": "A form",
    "text": "Text",
    "raw": "Bytes, as base64",
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
    timestamp_header: Annotated[
        str,
        Text(
            "Header of the timestamp",
            "Carries the time of sending in seconds; the signature then covers it as well.",
            max_length=100,
            show_when={"auth": ["hmac"]},
        ),
    ] = ""
    tolerance_s: Annotated[
        int,
        Number(
            "Tolerance in seconds", "How far the timestamp may be off.", ge=1, le=86_400, show_when={"auth": ["hmac"]}
        ),
    ] = 300
    signed_text: Annotated[
        str,
        Text(
            "Signed text",
            "With a timestamp: what the sender signs; {timestamp}.{body} when empty, v0:{timestamp}:{body} with Slack.",
            max_length=200,
            show_when={"auth": ["hmac"]},
        ),
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
    body_as: Annotated[
        Literal["auto", "json", "form", "text", "raw"],
        Dropdown("Read the body as", "By its content type, unless a sender names a wrong one.", labels=_BODY_LABELS),
    ] = "auto"
    content_types: Annotated[
        list[str], ListOf("Content types", "Others are answered with 415; all are taken when empty.", max_length=20)
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
