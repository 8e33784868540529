"""A known secret is found in every disguise, and nothing else is touched."""

import base64
from urllib.parse import quote, quote_plus

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from services.executor.driver.masking import MASK, Masker

SECRET = 'pa/ss+wörd "7"?'


def test_a_secret_is_hidden_as_it_is_in_json_url_encoded_in_base64_and_in_hexadecimal() -> None:
    masker = Masker([SECRET])
    raw = SECRET.encode()
    for form in (
        SECRET,
        msgspec.json.encode({"inner": SECRET}).decode(),
        quote(SECRET),
        quote(SECRET, safe=""),
        quote(SECRET, safe="")
        .replace("%2F", "%2f")
        .replace("%C3%B6", "%c3%b6")
        .replace("%2B", "%2b")
        .replace("%3F", "%3f"),
        quote_plus(SECRET),
        base64.b64encode(raw).decode(),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
        raw.hex(),
        raw.hex().upper(),
    ):
        masked = masker.text(f"before {form} after")
        assert masked.startswith("before ")
        assert masked.endswith(" after")
        assert MASK in masked, form
        assert form not in masked


@given(before=st.binary(max_size=10), after=st.binary(max_size=10), secret=st.binary(min_size=8, max_size=40))
def test_a_secret_is_found_in_base64_whatever_stands_around_it(before: bytes, after: bytes, secret: bytes) -> None:
    text = secret.hex()  # any text of at least 8 characters
    whole = base64.b64encode(before + text.encode() + after).decode()
    masked = Masker([text]).text(whole)
    assert MASK in masked
    assert len(masked.replace(MASK, "")) <= len(whole) - len(text)


def test_a_basic_auth_header_that_comes_back_does_not_tell_the_password() -> None:
    header = "Basic " + base64.b64encode(b"ann:correct horse").decode()
    assert base64.b64encode(b"correct horse")[:-4].decode() not in Masker(["correct horse"]).text(header)
    assert MASK in Masker(["correct horse"]).text(header)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    )
)
def test_a_document_without_the_secret_stays_as_it_is(value: object) -> None:
    document = msgspec.json.encode(value)
    assert Masker(["a secret that is nowhere"]).document(document) == document
    assert Masker([]).document(document) is document


def test_a_document_is_masked_in_keys_values_and_inside_both() -> None:
    masker = Masker(["hunter2hunter2"])
    document = msgspec.json.encode({"hunter2hunter2": ["x hunter2hunter2 y", {"a": "hunter2hunter2"}, 7, True, None]})
    assert msgspec.json.decode(masker.document(document)) == {MASK: [f"x {MASK} y", {"a": MASK}, 7, True, None]}


def test_a_short_secret_is_hidden_only_where_it_is_the_whole_value() -> None:
    masker = Masker(["abc", ""])
    assert masker.value(["abc", "abcd", "abc abc", {"abc": 1}]) == [MASK, "abcd", "abc abc", {MASK: 1}]
    assert masker.document(b'{"pin":"abc"}') == msgspec.json.encode({"pin": MASK})


def test_a_secret_of_digits_is_hidden_as_a_number_too() -> None:
    assert Masker(["12345678"]).value({"pin": 12345678, "other": 123456789}) == {"pin": MASK, "other": 123456789}
    assert Masker(["1"]).value([True, 1]) == [True, MASK]


def test_of_two_secrets_the_longer_one_is_hidden_whole() -> None:
    assert Masker(["password", "password-and-more"]).text("password-and-more") == MASK
    assert Masker(["password", "password-and-more"]).text("password password-and-more!") == f"{MASK} {MASK}!"
