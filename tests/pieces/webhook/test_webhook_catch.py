"""The settings of a webhook trigger: what the webhooks service can rely on."""

import pytest
from millrace_sdk import InputInvalid, describe
from millrace_sdk.decode import decode_input

from pieces.webhook import CatchInput, piece


def test_without_settings_everybody_is_let_in_by_any_method() -> None:
    catch = decode_input(CatchInput, b"{}")
    assert (catch.auth, catch.methods, catch.idempotency_header) == ("none", [], "")


def test_a_signed_webhook_names_header_algorithm_encoding_and_prefix() -> None:
    catch = decode_input(
        CatchInput,
        b'{"auth":"hmac","secret":["new","old"],"header":"X-Signature","algorithm":"sha512","encoding":"base64",'
        b'"prefix":"v1=","idempotency_path":"body.id","methods":["POST"]}',
    )
    assert (catch.secret, catch.algorithm, catch.encoding, catch.prefix) == (["new", "old"], "sha512", "base64", "v1=")


@pytest.mark.parametrize(
    "settings",
    [
        b'{"auth":"hmac"}',
        b'{"auth":"header","secret":""}',
        b'{"auth":"github","secret":[]}',
        b'{"auth":"github","secret":["good",""]}',
        b'{"auth":"basic","username":"ann"}',
        b'{"auth":"jwt","secret":"x"}',
        b'{"auth":"hmac","secret":"x","algorithm":"md5"}',
        b'{"methods":["TRACE"]}',
        b'{"secret":7}',
    ],
)
def test_settings_that_would_let_everybody_in_by_mistake_are_refused(settings: bytes) -> None:
    with pytest.raises(InputInvalid):
        decode_input(CatchInput, settings)


def test_the_catalogue_describes_every_setting() -> None:
    triggers = describe(piece)["triggers"]
    assert isinstance(triggers, list)
    [catch] = triggers
    assert isinstance(catch, dict)
    schema = catch["input_schema"]
    assert isinstance(schema, dict)
    properties = schema["properties"]
    assert isinstance(properties, dict)
    assert all(isinstance(field, dict) and field["title"] and "x-millrace" in field for field in properties.values())
    assert "required" not in schema or schema["required"] == []
