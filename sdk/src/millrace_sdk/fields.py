"""Fields of an input: what a person sees in the form, and what is checked before the action runs.

Decides: the kinds of fields and what each of them tells the form (`x-millrace` in the JSON Schema).
Leaves: the type itself to the annotation, checking to msgspec, the whole schema to schema.py.

A field is a type with its field function beside it::

    class SearchInput(Input):
        text: Annotated[str, Text("What to look for", min_length=1)]
        limit: Annotated[int, Number("How many", ge=1, le=100)] = 20
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from .values import Json

FieldKind = Literal[
    "text", "long_text", "secret", "number", "checkbox", "date", "file", "json", "list", "object", "dropdown"
]
"""How a field is shown. The type beside it says what is accepted."""

ShowWhen = Mapping[str, Sequence[str]]
"""Shows a field only while other fields have one of the given values: `{"auth": ["basic"]}`. It hides; it does not
check.
"""


class Input(msgspec.Struct, forbid_unknown_fields=True):
    """Base of every input. A field that is not declared is an error, and not ignored."""


def Text(  # noqa: N802 - a field reads as a type in the annotation it stands in
    title: str,
    description: str = "",
    *,
    min_length: int | None = None,
    max_length: int | None = None,
    pattern: str | None = None,
    show_when: ShowWhen | None = None,
) -> msgspec.Meta:
    """One line of text. `pattern` is the piece's own, never a user's: it runs in Python's `re`."""
    limits = _Limits(min_length=min_length, max_length=max_length, pattern=pattern)
    return _field("text", title, description, show_when, limits)


def LongText(  # noqa: N802 - see Text
    title: str,
    description: str = "",
    *,
    min_length: int | None = None,
    max_length: int | None = None,
    show_when: ShowWhen | None = None,
) -> msgspec.Meta:
    """Text of several lines."""
    return _field("long_text", title, description, show_when, _Limits(min_length=min_length, max_length=max_length))


def Secret(title: str, description: str = "", *, show_when: ShowWhen | None = None) -> msgspec.Meta:  # noqa: N802 - see Text
    """A text that belongs into a connection: the form hides it and offers `{{connections.…}}`."""
    return _field("secret", title, description, show_when)


def Number(  # noqa: N802 - see Text
    title: str,
    description: str = "",
    *,
    ge: float | None = None,
    le: float | None = None,
    show_when: ShowWhen | None = None,
) -> msgspec.Meta:
    """A number from `ge` to `le`, both included. The type beside it says whether fractions are allowed."""
    return _field("number", title, description, show_when, _Limits(ge=ge, le=le))


def Checkbox(title: str, description: str = "", *, show_when: ShowWhen | None = None) -> msgspec.Meta:  # noqa: N802 - see Text
    """Yes or no; the type beside it is `bool`."""
    return _field("checkbox", title, description, show_when)


def Date(title: str, description: str = "", *, show_when: ShowWhen | None = None) -> msgspec.Meta:  # noqa: N802 - see Text
    """A point in time in ISO 8601; the type beside it is `datetime` (or `date`)."""
    return _field("date", title, description, show_when)


def File(title: str, description: str = "", *, show_when: ShowWhen | None = None) -> msgspec.Meta:  # noqa: N802 - see Text
    """A stored file; the type beside it is `FileRef`."""
    return _field("file", title, description, show_when)


def JsonValue(title: str, description: str = "", *, show_when: ShowWhen | None = None) -> msgspec.Meta:  # noqa: N802 - see Text
    """Any JSON; the type beside it is `Json`."""
    return _field("json", title, description, show_when)


def ListOf(  # noqa: N802 - see Text
    title: str,
    description: str = "",
    *,
    min_length: int | None = None,
    max_length: int | None = None,
    show_when: ShowWhen | None = None,
) -> msgspec.Meta:
    """A list; the type beside it says of what."""
    return _field("list", title, description, show_when, _Limits(min_length=min_length, max_length=max_length))


def ObjectOf(title: str, description: str = "", *, show_when: ShowWhen | None = None) -> msgspec.Meta:  # noqa: N802 - see Text
    """Names with values; the type beside it is a `dict` or a struct."""
    return _field("object", title, description, show_when)


def Dropdown(  # noqa: N802 - see Text
    title: str,
    description: str = "",
    *,
    labels: Mapping[str, str] | None = None,
    show_when: ShowWhen | None = None,
) -> msgspec.Meta:
    """One of a few values, known when the piece is written; the type beside it is a `Literal`. `labels`: value → text
    on screen.
    """
    return _field("dropdown", title, description, show_when, labels=labels)


class _Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Limits in the words of `msgspec.Meta`; what is not set is not handed on."""

    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None
    ge: float | None = None
    le: float | None = None


def _field(
    kind: FieldKind,
    title: str,
    description: str,
    show_when: ShowWhen | None,
    limits: _Limits | None = None,
    *,
    labels: Mapping[str, str] | None = None,
) -> msgspec.Meta:
    hints: dict[str, Json] = {"kind": kind}
    if show_when:
        hints["show_when"] = {name: list(values) for name, values in show_when.items()}
    if labels:
        hints["labels"] = dict(labels)
    words = msgspec.to_builtins(limits or _Limits())
    made: msgspec.Meta = msgspec.Meta(
        title=title, description=description or None, extra_json_schema={"x-millrace": hints}, **words
    )
    return made
