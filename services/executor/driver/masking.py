"""Hides secrets in whatever leaves a step: outputs, log lines, messages of errors.

Decides: in which disguises a secret is recognised: as it is, in JSON, URL-encoded, in base64 at any offset (which finds
a password inside a basic-auth header), in hexadecimal.
Leaves: which texts are secret to the connections a step used.
A secret shorter than 8 characters is hidden only where it is a whole value: as part of a text it would be found
everywhere, and a mask in the middle of words would tell it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from urllib.parse import quote, quote_plus

import msgspec
from millrace_sdk import Json

MASK = "********"
SHORTEST_PART = 8
"""Secrets of at least this many characters are hidden inside longer texts too."""
_LEFT_IN_URLS = ("", "/", "!~*'()", "!$'()*,;:@/?", "!$'()*,;:@/", ";,/?:@&=+$!~*'()#")
"""What is not escaped in URLs, by who writes them: Python's quote twice, JavaScript's encodeURIComponent, the client of
egress.py in queries and in paths, JavaScript's encodeURI.
"""
_SHORTEST_DISGUISE = 6
"""A piece of base64 shorter than this is no sign of anything."""


class Masker:
    """Hides the given secrets. Cheap when there are none, or none is found."""

    def __init__(self, secrets: Sequence[str]) -> None:
        known = {secret for secret in secrets if secret}
        self._whole = frozenset(known)
        disguises = {form for secret in known if len(secret) >= SHORTEST_PART for form in _disguises(secret)}
        self._parts = tuple(sorted(disguises, key=len, reverse=True))  # the longest first: it contains the others
        self._written = tuple({_written(form) for form in disguises | known})

    def text(self, text: str) -> str:
        """The text without secrets."""
        if text in self._whole:
            return MASK
        for part in self._parts:
            if part in text:
                text = text.replace(part, MASK)
        return text

    def document(self, document: bytes) -> bytes:
        """A JSON document without secrets, as key, as value or inside either. Returned as it is when it holds none."""
        if not any(written in document for written in self._written):
            return document
        return msgspec.json.encode(self.value(msgspec.json.decode(document)))

    def value(self, value: Json) -> Json:
        """A JSON value without secrets."""
        if not self._whole:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):  # without comprehensions: they are a frame of their own, and the stack has 1,000
            items: list[Json] = []
            for item in value:
                items.append(self.value(item))  # noqa: PERF401
            return items
        if isinstance(value, dict):
            fields: dict[str, Json] = {}
            for key, item in value.items():
                fields[self.text(key)] = self.value(item)
            return fields
        if isinstance(value, int | float) and not isinstance(value, bool) and str(value) in self._whole:
            return MASK
        return value


def _disguises(secret: str) -> Iterable[str]:
    data = secret.encode("utf-8", "surrogatepass")
    yield secret
    yield msgspec.json.encode(secret).decode()[1:-1]  # inside a JSON text inside a text
    for safe in _LEFT_IN_URLS:
        for encoded in (quote(data, safe=safe), quote_plus(data, safe=safe)):
            yield encoded
            yield _lower_escapes(encoded)
    yield data.hex()
    yield data.hex().upper()
    yield from _base64_forms(data)


def _lower_escapes(encoded: str) -> str:
    """`%3D` and `%3d` are the same; both are seen in the wild."""
    first, *rest = encoded.split("%")
    return "%".join([first, *(part[:2].lower() + part[2:] for part in rest)])


def _base64_forms(data: bytes) -> Iterable[str]:
    """What stays the same of the secret's base64, whatever stands before and after it, in both alphabets."""
    yield base64.b64encode(data).decode()
    yield base64.urlsafe_b64encode(data).decode()
    for offset in range(3):
        start = (offset * 8 + 5) // 6  # characters that also depend on what stands before
        end = (offset + len(data)) * 8 // 6  # the first character that also depends on what follows
        inner = base64.b64encode(b"\0" * offset + data).decode()[start:end]
        if len(inner) >= _SHORTEST_DISGUISE:
            yield inner
            yield inner.replace("+", "-").replace("/", "_")


def _written(text: str) -> bytes:
    """As it stands inside a JSON document."""
    return msgspec.json.encode(text)[1:-1]
