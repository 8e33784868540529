"""YAML as a way to write JSON values: read from events, written to be read in a diff.

Decides: how scalars are told apart (YAML 1.2's JSON-like core: `yes`, dates and `007` are texts), that keys are texts
and stand once, what aliases may unfold to, how deep a document may nest, and the places of values for error messages.
Leaves: what the value means to documents.py.
Invariant: reading does not recurse and needs memory in proportion to the text, whatever the text (no alias bombs).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Protocol

import yaml

from flowlang.model import Json

DEPTH_LIMIT = 128
_WEIGHT_LIMIT = 2 * 1024 * 1024
"""Nodes and characters after aliases are unfolded."""

Mark = tuple[int, int]
"""Line and column, from 1."""
Place = tuple[str | int, ...]


class YamlError(Exception):
    """The text is no YAML that we read. `line` and `column` count from 1; 0 when unknown."""

    def __init__(self, message: str, mark: Mark) -> None:
        super().__init__(message)
        self.message = message
        self.line, self.column = mark


class _HasPlace(Protocol):
    line: int
    column: int


def _mark(mark: _HasPlace | None) -> Mark:
    return (mark.line + 1, mark.column + 1) if mark else (0, 0)


_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][-+]?[0-9]{1,4})?", re.ASCII)
_WORDS: dict[str, Json] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_INTEGER_DIGITS = 400


def _plain_scalar(text: str) -> Json:
    if text in _WORDS:
        return _WORDS[text]
    if len(text) <= _INTEGER_DIGITS:
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            number = float(text)
            return number if abs(number) != float("inf") else text
    return text


@dataclass
class _Open:
    """A list or object whose end has not been read."""

    value: list[Json] | dict[str, Json]
    mark: Mark
    anchor: str | None
    weight: int = 1
    key: str | None = None


@dataclass
class _Reader:
    open: list[_Open] = field(default_factory=list)
    anchors: dict[str, tuple[Json, int] | None] = field(default_factory=dict)
    marks: dict[Place, Mark] = field(default_factory=dict)
    result: list[Json] = field(default_factory=list)
    documents: int = 0
    unfolded: int = 0

    def take(self, event: yaml.Event) -> None:
        mark = _mark(event.start_mark)
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise YamlError("There is more than one document (`---`); a file holds one flow.", mark)
        elif isinstance(event, yaml.ScalarEvent):
            self._scalar(event, mark)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event.anchor, mark)
        elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
            self._begin(event, mark)
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            done = self.open.pop()
            self._value(done.value, done.weight, done.anchor, done.mark)

    def _begin(self, event: yaml.SequenceStartEvent | yaml.MappingStartEvent, mark: Mark) -> None:
        if event.tag is not None:
            raise YamlError(f"The tag `{event.tag}` is not allowed; write plain values.", mark)
        if len(self.open) >= DEPTH_LIMIT:
            raise YamlError(f"The document nests deeper than {DEPTH_LIMIT} levels; make it flatter.", mark)
        self._refuse_complex_key(mark)
        if event.anchor:
            self.anchors[event.anchor] = None
        value: list[Json] | dict[str, Json] = [] if isinstance(event, yaml.SequenceStartEvent) else {}
        self.open.append(_Open(value, mark, event.anchor))

    def _refuse_complex_key(self, mark: Mark) -> None:
        if self._is_key():
            raise YamlError("A key must be a text.", mark)

    def _scalar(self, event: yaml.ScalarEvent, mark: Mark) -> None:
        if event.tag not in (None, "!", "tag:yaml.org,2002:str"):
            raise YamlError(f"The tag `{event.tag}` is not allowed; write plain values.", mark)
        if self._is_key():
            self._key(event.value, mark)
            return
        plain = event.implicit[0] and event.tag is None
        value = _plain_scalar(event.value) if plain else event.value
        self._value(value, 1 + len(event.value), event.anchor, mark)

    def _is_key(self) -> bool:
        return bool(self.open) and isinstance(self.open[-1].value, dict) and self.open[-1].key is None

    def _key(self, key: str, mark: Mark) -> None:
        parent = self.open[-1]
        if key in parent.value:
            raise YamlError(f"The key `{key}` stands twice; keep one of them.", mark)
        parent.key = key
        parent.weight += len(key)

    def _alias(self, name: str | None, mark: Mark) -> None:
        if self._is_key():
            raise YamlError("A key cannot be an alias; write it out.", mark)
        known = self.anchors.get(name) if name else None
        if known is None:
            what = "refers to itself" if name in self.anchors else "has no anchor before it"
            raise YamlError(f"The alias `*{name}` {what}; write the value out.", mark)
        value, weight = known
        self.unfolded += weight
        if self.unfolded > _WEIGHT_LIMIT:
            raise YamlError("The aliases unfold to more than 2 MiB; write less of them.", mark)
        self._value(value, weight, None, mark)

    def _value(self, value: Json, weight: int, anchor: str | None, mark: Mark) -> None:
        if anchor:
            self.anchors[anchor] = (value, weight)
        if not self.open:
            self.marks[()] = mark
            self.result.append(value)
            return
        parent = self.open[-1]
        parent.weight += weight
        if isinstance(parent.value, list):
            parent.value.append(value)
        elif parent.key is not None:
            parent.value[parent.key] = value
            parent.key = None


class _Locator(_Reader):
    """Remembers where each value begins; used when a message needs a line."""

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent | yaml.SequenceStartEvent | yaml.MappingStartEvent):
            place: Place = tuple(
                len(part.value) if isinstance(part.value, list) else part.key or "" for part in self.open
            )
            self.marks.setdefault(place, _mark(event.start_mark))
        super().take(event)


def _run(text: str, reader: _Reader) -> Json:
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            reader.take(event)
    except yaml.MarkedYAMLError as error:
        where = _mark(error.problem_mark or error.context_mark)
        raise YamlError(f"This is no YAML: {error.problem or error.context}.", where) from None
    except yaml.YAMLError as error:
        raise YamlError(f"This is no YAML: {' '.join(str(error).split())}.", (0, 0)) from None
    if not reader.result:
        raise YamlError("The document is empty.", (1, 1))
    return reader.result[0]


def read_yaml_value(text: str) -> Json:
    """The JSON value that a YAML text writes. Raises YamlError."""
    return _run(text, _Reader())


def locate(text: str, place: Place) -> Mark:
    """Where a value stands in a YAML or JSON text, or the nearest part around it; (0, 0) when it cannot be told."""
    reader = _Locator()
    try:
        _run(text, reader)
    except YamlError:
        return (0, 0)
    while place and place not in reader.marks:
        place = place[:-1]
    return reader.marks.get(place, (0, 0))


class _Dumper(yaml.SafeDumper):
    """Writes lists under their key, text of several lines as a block, no aliases."""

    def ignore_aliases(self, _data: object) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002  # lists are indented
        super().increase_indent(flow, False)


_ODD_BREAKS = re.compile("[\r\x85\u2028\u2029\ufeff]")
"""Line breaks to YAML; only double quotes with escapes keep them as they are."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if _ODD_BREAKS.search(text) else "|" if "\n" in text and not text[0].isspace() else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _represent_float(dumper: yaml.SafeDumper, number: float) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:float", repr(number))


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(float, _represent_float)
# What our reader takes for a number must be quoted as text, though YAML 1.1 would not need it (`1e3`).
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(rf"^(?:{_FLOAT.pattern})$"), list("-+0123456789"))


def write_yaml_value(value: Json) -> str:
    """The value as YAML, in the order of its keys. What is read back is equal."""
    return yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=110, indent=2
    )
