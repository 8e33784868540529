"""What the webhook triggers of a flow document ask for, as values the hot path can use.

Decides: which triggers are endpoints (piece `webhook`, event `catch`), what their settings mean and default to, what
the presets stand for, and which settings cannot be applied.
Leaves: the texts of secrets to connection_secrets.py (here they are still references), checking requests to verify.py.
"""

import re
from dataclasses import dataclass
from typing import Literal

import msgspec

from chassis.errors import Invalid
from services.webhooks.verify import Algorithm, Basic, Encoding, Open, Proof, SecretHeader, Signature

PIECE, EVENT = "webhook", "catch"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
MAX_SECRETS = 10

BodyKind = Literal["auto", "json", "form", "text", "raw"]
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,100}")  # RFC 9110 field names; anchored by fullmatch, linear
_PATH = re.compile(r"(body|headers|query)(\.[^.\[\]]+|\[\d{1,6}\])*")
_PATH_STEP = re.compile(r"([^.\[\]]+)|\[(\d{1,6})\]")


class CatchInput(msgspec.Struct):
    """The `input` of a `webhook.catch` trigger; pieces/webhook declares it to people and says what each field does."""

    auth: Literal["none", "header", "basic", "hmac", "github"] = "none"
    secret: str | list[str] = ""
    header: str = ""
    username: str = ""
    password: str | list[str] = ""
    algorithm: Algorithm = "sha256"
    encoding: Encoding = "hex"
    prefix: str = ""
    timestamp_header: str = ""
    tolerance_s: int = 300
    signed_text: str = ""
    """With a timestamp header: what is signed, `{timestamp}` and `{body}` filled in; default `{timestamp}.{body}`."""
    methods: list[str] = []
    """None: all."""
    idempotency_header: str = ""
    idempotency_path: str = ""
    body_as: BodyKind = "auto"
    """How the body is read; `auto` goes by the content type."""
    content_types: list[str] = []
    """Media types taken, others get 415; none: all."""


class _Trigger(msgspec.Struct):
    id: str
    piece: str
    event: str
    input: msgspec.Raw = msgspec.Raw(b"{}")


class _Document(msgspec.Struct):
    triggers: list[_Trigger] = []


@dataclass(frozen=True, slots=True)
class WebhookTrigger:
    """One endpoint of a flow, before its secrets are known."""

    id: str
    settings: CatchInput
    methods: frozenset[str]
    content_types: frozenset[str]
    idempotency_header: str
    idempotency_path: tuple[str | int, ...]
    masked_headers: frozenset[str]
    secret_references: tuple[str, ...]


def webhook_triggers(document: bytes) -> list[WebhookTrigger]:
    """The endpoints that a flow document declares, in its order. Raises: Invalid TRIGGER_INVALID."""
    try:
        parsed = msgspec.json.decode(document, type=_Document)
    except msgspec.DecodeError as error:
        raise _invalid(f"The flow document cannot be read: {error}.") from error
    return [_trigger(found) for found in parsed.triggers if (found.piece, found.event) == (PIECE, EVENT)]


def proof_of(trigger: WebhookTrigger, secrets: tuple[bytes, ...]) -> Proof:
    """What a caller must show, with the live secrets filled in. Raises: Invalid TRIGGER_INVALID without a secret."""
    settings = trigger.settings
    if settings.auth == "none":
        return Open()
    if not secrets or not all(secret.strip() for secret in secrets):
        raise _invalid(f"Trigger {trigger.id}: its secret is missing or empty. Set it and publish again.")
    if settings.auth == "header":
        return SecretHeader(header=_proof_header(settings), prefix=settings.prefix, secrets=secrets)
    if settings.auth == "basic":
        return Basic(username=settings.username, secrets=secrets)
    if settings.auth == "github":
        return Signature(header=_GITHUB, secrets=secrets, prefix="sha256=")
    before, _, after = (settings.signed_text or _SIGNED_TEXT).partition("{body}")
    return Signature(
        header=_proof_header(settings),
        secrets=secrets,
        algorithm=settings.algorithm,
        encoding=settings.encoding,
        prefix=settings.prefix,
        timestamp_header=settings.timestamp_header.lower(),
        tolerance_s=settings.tolerance_s,
        signed_text=(before, after),
    )


def _trigger(found: _Trigger) -> WebhookTrigger:
    try:
        settings = msgspec.json.decode(found.input, type=CatchInput)
    except msgspec.DecodeError as error:
        raise _invalid(f"Trigger {found.id}: its input is not understood: {error}.") from error
    _check(found.id, settings)
    secret = settings.password if settings.auth == "basic" else settings.secret
    references = (secret,) if isinstance(secret, str) else tuple(secret)
    duplicates = settings.idempotency_header or ("x-github-delivery" if settings.auth == "github" else "")
    return WebhookTrigger(
        id=found.id,
        settings=settings,
        methods=frozenset(method.upper() for method in settings.methods or METHODS),
        content_types=frozenset(media.strip().lower() for media in settings.content_types),
        idempotency_header=duplicates.lower(),
        idempotency_path=_path(found.id, settings.idempotency_path),
        masked_headers=_MASKED_ALWAYS | _masked(settings),
        secret_references=references if settings.auth != "none" else (),
    )


_GITHUB = "x-hub-signature-256"
_SIGNED_TEXT = "{timestamp}.{body}"
_MASKED_ALWAYS = frozenset({"authorization", "proxy-authorization", "cookie"})
"""Never stored: they prove who someone is, here or elsewhere (the builder may share the host)."""


def _masked(settings: CatchInput) -> frozenset[str]:
    if settings.auth == "github":
        return frozenset({_GITHUB, "x-hub-signature"})
    return frozenset({_proof_header(settings)}) if settings.auth in ("header", "hmac") else frozenset()


def _proof_header(settings: CatchInput) -> str:
    default = "x-signature" if settings.auth == "hmac" else "x-webhook-secret"
    return settings.header.lower() or default


def _check(trigger_id: str, settings: CatchInput) -> None:
    for method in settings.methods:
        if method.upper() not in METHODS:
            raise _invalid(f"Trigger {trigger_id}: {method!r} is no webhook method; use {', '.join(METHODS)}.")
    if any(isinstance(live, list) and len(live) > MAX_SECRETS for live in (settings.secret, settings.password)):
        raise _invalid(f"Trigger {trigger_id}: at most {MAX_SECRETS} secrets can be live.")
    for header in (settings.header, settings.timestamp_header, settings.idempotency_header):
        if header and not _TOKEN.fullmatch(header.lower()):
            raise _invalid(f"Trigger {trigger_id}: {header[:100]!r} is no header name.")
    signed = settings.signed_text or _SIGNED_TEXT
    if settings.timestamp_header and ("{timestamp}" not in signed or signed.count("{body}") != 1):
        raise _invalid(
            f"Trigger {trigger_id}: the signed text must contain {{timestamp}} and {{body}} (once); "
            "a timestamp that is not signed proves nothing."
        )
    if not 1 <= settings.tolerance_s <= 86_400:
        raise _invalid(f"Trigger {trigger_id}: the tolerance must be between 1 and 86400 seconds.")


def _path(trigger_id: str, text: str) -> tuple[str | int, ...]:
    if not text:
        return ()
    if not _PATH.fullmatch(text):
        raise _invalid(f"Trigger {trigger_id}: {text[:100]!r} is no place in the request; write it like body.id.")
    return tuple(int(index) if index else name for name, index in _PATH_STEP.findall(text))


def _invalid(message: str) -> Invalid:
    return Invalid("TRIGGER_INVALID", message)
