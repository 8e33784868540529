"""Who may call an endpoint: the senders' documented examples, and what must not get in."""

import base64
import hashlib
import hmac
import json

import msgspec
import pytest

from chassis.errors import Invalid
from services.webhooks.refusals import CREDENTIALS_INVALID, SIGNATURE_INVALID
from services.webhooks.triggers import WebhookTrigger, proof_of, webhook_triggers
from services.webhooks.verify import Basic, Open, Proof, SecretHeader, Signature, verify

NOW_MS = 1_731_705_121_500
GITHUB_SECRET = "It's a Secret to Everybody"
GITHUB_BODY = b"Hello, World!"
GITHUB_SIGNATURE = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"


def trigger(**settings: object) -> WebhookTrigger:
    document = {"triggers": [{"id": "t", "piece": "webhook", "event": "catch", "input": settings}]}
    (found,) = webhook_triggers(json.dumps(document).encode())
    return found


def proof(*secrets: str, **settings: object) -> Proof:
    return proof_of(trigger(**settings), tuple(secret.encode() for secret in secrets))


def test_githubs_documented_example_is_accepted() -> None:
    github = proof(GITHUB_SECRET, auth="github", secret="x")
    assert verify(github, {"x-hub-signature-256": GITHUB_SIGNATURE}, GITHUB_BODY, NOW_MS) is None


def test_standard_webhooks_vector_verifies_with_the_generic_settings() -> None:
    secret = base64.b64decode("plJ3nmyCDGBKInavdOK15jsl")
    standard = Signature(
        "webhook-signature",
        (secret,),
        encoding="base64",
        prefix="v1,",
        timestamp_header="webhook-timestamp",
        signed_text=("msg_loFOjxBNrRLzqYUf.{timestamp}.", ""),
    )
    headers = {
        "webhook-timestamp": "1731705121",
        "webhook-signature": "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
    }
    body = b'{"event_type":"ping","data":{"success":true}}'
    assert verify(standard, headers, body, NOW_MS) is None


def test_slack_form_of_signed_text() -> None:
    slack = proof(
        "s3cret",
        auth="hmac",
        secret="x",
        header="X-Slack-Signature",
        prefix="v0=",
        timestamp_header="X-Slack-Request-Timestamp",
        signed_text="v0:{timestamp}:{body}",
    )
    signature = hmac.new(b"s3cret", b"v0:1731705121:payload", hashlib.sha256).hexdigest()
    headers = {"x-slack-signature": f"v0={signature}", "x-slack-request-timestamp": "1731705121"}
    assert verify(slack, headers, b"payload", NOW_MS) is None
    assert verify(slack, headers, b"payload ", NOW_MS) is SIGNATURE_INVALID


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "sha256=",
        GITHUB_SIGNATURE[:-1],
        GITHUB_SIGNATURE[:-2],
        GITHUB_SIGNATURE + "00",
        GITHUB_SIGNATURE.removeprefix("sha256="),
        GITHUB_SIGNATURE.replace("sha256=", "sha1="),
        "sha1=" + hmac.new(GITHUB_SECRET.encode(), GITHUB_BODY, hashlib.sha1).hexdigest(),
        "sha256=" + hmac.new(GITHUB_SECRET.encode(), GITHUB_BODY, hashlib.sha1).hexdigest(),
        "sha256=" + hmac.new(b"", GITHUB_BODY, hashlib.sha256).hexdigest(),
        "sha256=" + hashlib.sha256(GITHUB_BODY).hexdigest(),
        "sha256=zz" + GITHUB_SIGNATURE[9:],
        "sha256=\u00e9" + GITHUB_SIGNATURE[8:],
        GITHUB_SIGNATURE + ", " + GITHUB_SIGNATURE,
    ],
)
def test_missing_wrong_truncated_or_foreign_signatures_are_refused_with_one_text(header: str | None) -> None:
    github = proof(GITHUB_SECRET, auth="github", secret="x")
    headers = {} if header is None else {"x-hub-signature-256": header}
    assert verify(github, headers, GITHUB_BODY, NOW_MS) is SIGNATURE_INVALID


def test_a_body_that_was_serialised_anew_is_refused() -> None:
    body = b'{"a": 1, "b": 2}'
    signature = hmac.new(b"k", body, hashlib.sha256).hexdigest()
    generic = proof("k", auth="hmac", secret="x")
    assert verify(generic, {"x-signature": signature}, body, NOW_MS) is None
    assert verify(generic, {"x-signature": signature}, json.dumps(json.loads(body)).encode() + b" ", NOW_MS)
    assert verify(generic, {"x-signature": signature}, b'{"b":2,"a":1}', NOW_MS) is SIGNATURE_INVALID


@pytest.mark.parametrize(("offset_s", "accepted"), [(0, True), (300, True), (-300, True), (301, False), (-301, False)])
def test_a_timestamp_counts_within_its_tolerance(offset_s: int, accepted: bool) -> None:
    stamp = str(NOW_MS // 1000 + offset_s)
    dated = proof("k", auth="hmac", secret="x", timestamp_header="X-Time")
    signature = hmac.new(b"k", f"{stamp}.b".encode(), hashlib.sha256).hexdigest()
    refusal = verify(dated, {"x-time": stamp, "x-signature": signature}, b"b", NOW_MS)
    assert (refusal is None) == accepted


@pytest.mark.parametrize("stamp", ["", "now", "-5", "1e9", "٣", "9" * 400, "1731705121 "])
def test_odd_timestamps_are_refused(stamp: str) -> None:
    dated = proof("k", auth="hmac", secret="x", timestamp_header="X-Time")
    signature = hmac.new(b"k", f"{stamp}.b".encode(), hashlib.sha256).hexdigest()
    assert verify(dated, {"x-time": stamp, "x-signature": signature}, b"b", NOW_MS) is SIGNATURE_INVALID


def test_every_live_secret_is_good_while_keys_rotate() -> None:
    both = proof("old", "new", auth="header", secret=["x", "y"])
    assert verify(both, {"x-webhook-secret": "old"}, b"", NOW_MS) is None
    assert verify(both, {"x-webhook-secret": "new"}, b"", NOW_MS) is None
    assert verify(both, {"x-webhook-secret": "older"}, b"", NOW_MS) is CREDENTIALS_INVALID
    assert verify(both, {"x-webhook-secret": "old, new"}, b"", NOW_MS) is CREDENTIALS_INVALID


def test_base64_signatures_and_other_algorithms() -> None:
    shop = proof("k", auth="hmac", secret="x", header="X-Shop", encoding="base64", algorithm="sha512")
    good = base64.b64encode(hmac.digest(b"k", b"b", "sha512")).decode()
    assert verify(shop, {"x-shop": good}, b"b", NOW_MS) is None
    assert verify(shop, {"x-shop": good.rstrip("=")}, b"b", NOW_MS) is SIGNATURE_INVALID
    assert verify(shop, {"x-shop": hmac.digest(b"k", b"b", "sha512").hex()}, b"b", NOW_MS) is SIGNATURE_INVALID


def test_basic_authentication() -> None:
    basic = proof("p:ss", auth="basic", username="ann", password="x")

    def sent(text: str) -> dict[str, str]:
        return {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}

    assert verify(basic, sent("ann:p:ss"), b"", NOW_MS) is None
    for wrong in ("ann:", "ann:p", ":p:ss", "bob:p:ss", "", "ann:p:ss\0"):
        assert verify(basic, sent(wrong), b"", NOW_MS) is CREDENTIALS_INVALID
    assert verify(basic, {"authorization": "Bearer x"}, b"", NOW_MS) is CREDENTIALS_INVALID
    assert verify(basic, {"authorization": "Basic !!"}, b"", NOW_MS) is CREDENTIALS_INVALID


@pytest.mark.parametrize("settings", [{"auth": "header"}, {"auth": "basic"}, {"auth": "hmac"}, {"auth": "github"}])
@pytest.mark.parametrize("secrets", [(), ("",), ("good", ""), ("   ",)])
def test_a_missing_or_empty_secret_refuses_to_be_applied(settings: dict[str, str], secrets: tuple[str, ...]) -> None:
    with pytest.raises(Invalid, match="missing or empty"):
        proof(*secrets, **settings)


@pytest.mark.parametrize(
    "fail_open", [SecretHeader("h", "", (b"",)), Basic("", (b"",)), Signature("h", (b"",)), Signature("h", ())]
)
def test_even_a_proof_built_without_a_secret_lets_nobody_in(fail_open: SecretHeader | Basic | Signature) -> None:
    empty = {"h": "", "authorization": "Basic Og=="}
    assert verify(fail_open, empty, b"", NOW_MS) is not None
    signed = {"h": hmac.digest(b"", b"", "sha256").hex()}
    assert verify(fail_open, signed, b"", NOW_MS) is not None


def test_open_endpoints_ask_for_nothing() -> None:
    assert verify(proof(), {}, b"", NOW_MS) is None
    assert proof() == Open()


@pytest.mark.parametrize(
    "settings",
    [
        {"auth": "jwt"},
        {"auth": "hmac", "header": "bad header"},
        {"auth": "hmac", "header": "a\r\nb"},
        {"methods": ["TRACE"]},
        {"auth": "hmac", "algorithm": "md5"},
        {"timestamp_header": "x-t", "signed_text": "{body}"},
        {"secret": ["s"] * 11},
        {"tolerance_s": 0},
        {"idempotency_path": "run.id"},
        {"idempotency_path": "body..id"},
    ],
)
def test_settings_that_cannot_work_are_told(settings: dict[str, object]) -> None:
    with pytest.raises(Invalid) as told:
        trigger(**settings)
    assert told.value.reason == "TRIGGER_INVALID"
    assert "t" in told.value.message


def test_every_setting_of_the_piece_is_understood() -> None:
    from millrace_sdk.decode import decode_input

    from pieces.webhook import CatchInput as Declared
    from services.webhooks.triggers import CatchInput

    declared = {field.name: field for field in msgspec.structs.fields(Declared)}
    read = {field.name: field for field in msgspec.structs.fields(CatchInput)}
    assert declared.keys() == read.keys()
    assert msgspec.to_builtins(decode_input(Declared, b"{}")) == msgspec.to_builtins(CatchInput())
