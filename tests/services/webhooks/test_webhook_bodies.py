"""What bodies become, and what odd ones are told."""

import json

import msgspec
import pytest

from chassis.errors import Invalid
from services.webhooks.bodies import body_json, check_json, kind_of
from services.webhooks.multipart import clean_name, read_multipart
from services.webhooks.payload import MASK, assemble, query_json, text_at
from services.webhooks.refusals import UnsupportedBody
from services.webhooks.triggers import BodyKind

DEPTH = 200


def refused(body: bytes) -> Invalid:
    with pytest.raises(Invalid) as told:
        check_json(body, DEPTH)
    assert told.value.reason == "JSON_INVALID"
    assert told.value.http == 400
    return told.value


@pytest.mark.parametrize(
    ("content_type", "declared", "kind"),
    [
        ("application/json", "auto", "json"),
        ("application/json; charset=utf-8", "auto", "json"),
        ("Application/Vnd.API+JSON", "auto", "json"),
        ("application/x-www-form-urlencoded", "auto", "form"),
        ("multipart/form-data; boundary=x", "auto", "multipart"),
        ("multipart/form-data; boundary=x", "raw", "raw"),
        ("text/plain", "auto", "text"),
        ("application/xml", "auto", "text"),
        ("image/svg+xml", "auto", "text"),
        ("application/pdf", "auto", "raw"),
        ("", "auto", "raw"),
        ("text/plain", "json", "json"),
    ],
)
def test_the_content_type_decides_unless_the_endpoint_declares(
    content_type: str, declared: BodyKind, kind: str
) -> None:
    assert kind_of(content_type, declared) == kind


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b' {"a" : [1, 2.50, -0, null, true]} \n',
        b'{"a":1,"a":2}',
        b'{"a":"\\u0000"}',
        b'{"big":123456789012345678901234567890}',
        b'{"far":1e999}',
        '{"ü":"😀"}'.encode(),
        b'"text"',
        b"0",
        b'{"__proto__":{"x":1},"constructor":1}',
    ],
)
def test_json_is_kept_byte_for_byte(body: bytes) -> None:
    assert check_json(body, DEPTH) == body


def test_a_byte_order_mark_is_taken_off() -> None:
    assert check_json(b"\xef\xbb\xbf{}", DEPTH) == b"{}"


@pytest.mark.parametrize(
    ("body", "line", "column"),
    [
        (b"{", 1, 2),
        (b'{"a":1,}', 1, 8),
        (b'{"a":\n  tru}', 2, 4),
        (b"[1 2]", 1, 4),
        (b"NaN", 1, 1),
        (b'{"a":NaN}', 1, 6),
        (b"[Infinity]", 1, 2),
        (b'{"a":1} x', 1, 10),
        (b"   ", 1, 4),
        (b'{"a":"\xff"}', 1, 7),
        (b'{\n"a":"\xed\xa0\x80"}', 2, 6),
        (b'"a\x00"', 1, 3),
        (b"'a'", 1, 1),
    ],
)
def test_broken_json_is_told_where(body: bytes, line: int, column: int) -> None:
    error = refused(body)
    assert (error.details["line"], error.details["column"]) == (line, column), error.message


@pytest.mark.parametrize(
    "body", [b'"\\ud800"', b'"\\udc00 and more"', b'{"a":"\\ud800\\u0041xxxxxx"}', b'{"\\ud83d":1}']
)
def test_lone_surrogates_are_refused(body: bytes) -> None:
    refused(body)


@pytest.mark.parametrize("depth", [201, 500, 900, 10_000, 1_000_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    assert "deeper than 200" in refused(b"[" * depth + b"]" * depth).message
    assert "deeper than 200" in refused(b'{"a":' * depth + b"1" + b"}" * depth).message


def test_nesting_up_to_the_limit_is_taken() -> None:
    for body in (b"[" * 200 + b"]" * 200, b'{"a":' * 200 + b"1" + b"}" * 200):
        assert check_json(body, DEPTH) == body


def test_brackets_in_texts_are_no_nesting() -> None:
    body = json.dumps(["[" * 500 + '"\\"{{{' * 300] * 3).encode()
    assert check_json(body, DEPTH) == body


def test_a_hundred_thousand_keys_are_taken() -> None:
    body = json.dumps({f"key{n}": {"n": [n]} for n in range(100_000)}).encode()
    assert check_json(body, DEPTH) == body


def test_forms_texts_and_raw_bytes() -> None:
    assert json.loads(body_json(b"a=1&b=x+y&a=2&c=", "form", "", DEPTH, 10)) == {"a": ["1", "2"], "b": "x y", "c": ""}
    assert (
        json.loads(body_json("grüß".encode("latin-1"), "text", "text/plain; charset=ISO-8859-1", DEPTH, 10)) == "grüß"
    )
    output = json.loads(b'{"body":%s}' % body_json(b"\x00\xff", "raw", "", DEPTH, 10))
    assert output == {"body": None, "raw_body_base64": "AP8="}
    assert body_json(b"", "json", "application/json", DEPTH, 10) == b"null"


def test_forms_and_queries_have_a_limit_of_fields() -> None:
    with pytest.raises(Invalid, match="more than 10 fields"):
        body_json(b"&".join(b"a=1" for _ in range(11)), "form", "", DEPTH, 10)
    with pytest.raises(Invalid, match="more than 10 fields"):
        query_json("&".join(["a=1"] * 11), 10)


def test_texts_that_are_not_what_they_say_are_refused() -> None:
    with pytest.raises(UnsupportedBody):
        body_json(b"a", "text", "text/plain; charset=utf-7", DEPTH, 10)
    with pytest.raises(Invalid, match="byte 1"):
        body_json(b"a\xff", "text", "text/plain", DEPTH, 10)
    with pytest.raises(Invalid, match="not UTF-8"):
        body_json(b"a=\xff", "form", "", DEPTH, 10)


BOUNDARY = "multipart/form-data; boundary=XX"


def part(headers: str, content: bytes) -> bytes:
    return b"--XX\r\n" + headers.encode() + b"\r\n\r\n" + content + b"\r\n"


def test_multipart_gives_fields_and_files() -> None:
    body = (
        part('Content-Disposition: form-data; name="a"', b"1")
        + part('Content-Disposition: form-data; name="a"', "ü".encode())
        + part(
            'Content-Disposition: form-data; name="f"; filename="../../etc/p.txt"\r\nContent-Type: text/x', b"\x00\r\n-"
        )
        + b"--XX--\r\n"
    )
    form = read_multipart(body, BOUNDARY, 10, 2)
    assert form.fields == {"a": ["1", "ü"]}
    (file,) = form.files
    assert (file.field, file.name, file.content_type, file.content) == ("f", "p.txt", "text/x", b"\x00\r\n-")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "multipart/form-data"),
        (b"{}", BOUNDARY),
        (b"--XX\r\n", BOUNDARY),
        (part('Content-Disposition: form-data; name="a"', b"1"), BOUNDARY),
        (part("Content-Type: text/plain", b"1") + b"--XX--\r\n", BOUNDARY),
        (part('Content-Disposition: form-data; name="a"', b"\xff") + b"--XX--\r\n", BOUNDARY),
        (part("X: " + "y" * 9000, b"1") + b"--XX--\r\n", BOUNDARY),
        (part('Content-Disposition: form-data; name="a"', b"1") * 13 + b"--XX--\r\n", BOUNDARY),
        (part('Content-Disposition: form-data; name="a"; filename="f"', b"1") * 3 + b"--XX--\r\n", BOUNDARY),
        (b"x", "multipart/form-data; boundary=" + "b" * 71),
    ],
)
def test_broken_multipart_is_refused(body: bytes, content_type: str) -> None:
    with pytest.raises(Invalid) as told:
        read_multipart(body, content_type, 10, 2)
    assert told.value.reason == "FORM_INVALID"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a.txt", "a.txt"),
        ("../../etc/passwd", "passwd"),
        ("C:\\x\\y.doc", "y.doc"),
        ("..", "file"),
        ("", "file"),
        ("a\0b\r\n.txt", "ab.txt"),
        ("x" * 400, "x" * 255),
        ("/", "file"),
    ],
)
def test_file_names_lose_paths_and_controls(given: str, kept: str) -> None:
    assert clean_name(given) == kept


def test_the_output_masks_what_proves_identity() -> None:
    headers = {"authorization": "Bearer s3cret", "x-hub": "s3cret", "accept": 'a"b'}
    output = assemble("POST", headers, frozenset({"authorization", "x-hub"}), "q=1&q=2", b'{"n": 1.0}', 10)
    assert b"s3cret" not in output
    assert json.loads(output) == {
        "method": "POST",
        "headers": {"authorization": MASK, "x-hub": MASK, "accept": 'a"b'},
        "query": {"q": ["1", "2"]},
        "files": [],
        "body": {"n": 1.0},
    }
    assert b'"body":{"n": 1.0}' in output


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (("body", "id"), "7"),
        (("body", "list", 0, "x"), "é"),
        (("body", "flag"), ""),
        (("body", "no"), ""),
        (("body", "list", 9), ""),
        (("body", "list"), ""),
    ],
)
def test_a_duplicate_key_in_the_body_is_found(path: tuple[str | int, ...], found: str) -> None:
    output = msgspec.json.encode({"body": {"id": 7, "list": [{"x": "é"}], "flag": True}})
    assert text_at(output, path) == found
    assert text_at(b'{"body":{"id":1e999}}', path) == ""
