"""Flow documents as text: JSON on the wire and in the database, YAML in a git repository, the same either way.

Decides: the bounds of a text (1 MiB, 128 levels), the sentence an author reads when it cannot be read, how a document
of an earlier `schema` becomes one of today, and that what is written holds the schema first and leaves defaults out.
Leaves: YAML's details to yaml_text.py, what makes a document valid to validate.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec

from flowlang.model import SCHEMA, Flow, Json
from flowlang.yaml_text import DEPTH_LIMIT, Place, YamlError, locate, read_yaml_value, write_yaml_value

SIZE_LIMIT = 1024 * 1024
Migration = Callable[[dict[str, Json]], dict[str, Json]]

MIGRATIONS: Mapping[int, Migration] = {}
"""From the schema number to the next: a function that takes a document and gives it in the next form."""


class DocumentError(Exception):
    """A text is no flow document. `line` and `column` count from 1; 0 when there is no place to point to."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


def read_json(data: bytes) -> Flow:
    """Read a JSON document. Raises DocumentError."""
    text = _text(data)
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise _malformed(error, text) from None
    except RecursionError:
        raise _too_deep() from None
    return _flow(value, text)


def read_yaml(data: bytes) -> Flow:
    """Read a YAML document. Raises DocumentError."""
    text = _text(data)
    try:
        value = read_yaml_value(text)
    except YamlError as error:
        raise DocumentError(error.message, error.line, error.column) from None
    return _flow(value, text)


def flow_from_value(value: Json) -> Flow:
    """Read a document that is already a JSON value. Raises DocumentError without a place."""
    return _flow(value, "")


def write_json(flow: Flow, *, indent: int = 0) -> bytes:
    """The document as JSON; compact, or indented to be read by people."""
    data = msgspec.json.encode(flow_to_value(flow))
    return msgspec.json.format(data, indent=indent) + b"\n" if indent else data


def write_yaml(flow: Flow) -> str:
    """The document as YAML: keys in the order of the model, sources as blocks, defaults left out."""
    return write_yaml_value(flow_to_value(flow))


def flow_to_value(flow: Flow) -> dict[str, Json]:
    """The document as a JSON value, its schema first."""
    value: dict[str, Json] = msgspec.to_builtins(flow)
    return {"schema": SCHEMA} | value


def fault_in_extent(flow: Flow) -> str:
    """Why a document could not be read back: too deep or too big. Empty when it can."""
    value = flow_to_value(flow)
    if _depth_exceeds(value, DEPTH_LIMIT):
        return _too_deep().message
    size = len(msgspec.json.encode(value))
    return f"The document has {size} bytes; at most {SIZE_LIMIT} (1 MiB) are allowed." if size > SIZE_LIMIT else ""


def migrate(
    document: dict[str, Json], migrations: Mapping[int, Migration] = MIGRATIONS, newest: int = SCHEMA
) -> dict[str, Json]:
    """The document in the newest form. Raises DocumentError for a schema that this release cannot read."""
    number = document.get("schema", 1)
    if type(number) is not int or number < 1:
        raise DocumentError("`schema` must be the number of the document's form, 1 or higher.")
    if number > newest:
        raise DocumentError(
            f"The document has schema {number} and was written by a newer release; this one reads up to {newest}. "
            "Update Millrace to use it."
        )
    while number < newest:
        document = migrations[number](document)
        number += 1
    return {**document, "schema": newest}


def _text(data: bytes) -> str:
    if len(data) > SIZE_LIMIT:
        raise DocumentError(f"The document has {len(data)} bytes; at most {SIZE_LIMIT} (1 MiB) are allowed.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = _line_column(data[: error.start].decode("utf-8", "replace"))
        raise DocumentError("The document is not UTF-8; save it in that encoding.", line, column) from None


def _line_column(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _malformed(error: msgspec.DecodeError, text: str) -> DocumentError:
    message = str(error)
    where = re.search(r"\(byte (\d+)\)", message)
    offset = int(where[1]) if where else len(text.encode())
    line, column = _line_column(text.encode()[:offset].decode("utf-8", "replace"))
    cause = message.partition(" (byte")[0].removeprefix("JSON is malformed: ")
    return DocumentError(f"This is no JSON: {cause[:1].lower()}{cause[1:]}.", line, column)


def _too_deep() -> DocumentError:
    return DocumentError(f"The document nests deeper than {DEPTH_LIMIT} levels; make it flatter.")


def _flow(value: Json, text: str) -> Flow:
    if not isinstance(value, dict):
        raise DocumentError("A flow document is an object with `name`, `triggers` and `steps`.", 1, 1)
    if _depth_exceeds(value, DEPTH_LIMIT):
        raise _too_deep()
    try:
        return msgspec.convert(migrate(value), Flow)
    except msgspec.ValidationError as error:
        sentence, place = explain(error)
        line, column = locate(text, place) if text else (0, 0)
        raise DocumentError(sentence, line, column) from None


def _depth_exceeds(value: Json, limit: int) -> bool:
    level: list[Json] = [value]
    for _ in range(limit):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


_PATH_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[\.\.\.\]")
_TYPE_NAMES = {
    "str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false", "null": "null",
    "array": "a list", "object": "an object",
}  # fmt: skip


def explain(error: msgspec.ValidationError) -> tuple[str, Place]:
    """A msgspec error as a sentence that says what to mend, and the place it is about."""
    cause, _, path = str(error).partition(" - at `$")
    steps = [step for step in _PATH_STEP.finditer(path.rstrip("`")) if step[0] != "[...]"]
    place: Place = tuple(step[1] or int(step[2]) for step in steps)
    at = f"`{path.rstrip('`').lstrip('.')}`" if place else "The document"
    return f"{at} {_sentence(cause, place)}", place


def _sentence(cause: str, place: Place) -> str:
    quoted = re.findall(r"[`']([^`']*)[`']", cause)
    if cause.startswith("Object missing required field"):
        return f"lacks the field `{quoted[0]}`; add it."
    if cause.startswith("Object contains unknown field"):
        return f"has an unknown field `{quoted[0]}`; take it out or correct its name."
    if cause.startswith("Expected") and len(quoted) > 1:
        wanted = " or ".join(_TYPE_NAMES.get(part, part) for part in quoted[0].split(" | "))
        hint = " Put it into quotes." if "str" in quoted[0] and quoted[1] in ("int", "float", "bool") else ""
        return f"must be {wanted}, not {_TYPE_NAMES.get(quoted[1], quoted[1])}.{hint}"
    if cause.startswith("Invalid value") and place[-1:] == ("kind",):
        return f"is `{quoted[0]}`, which is no kind of step; use action, code, router, loop or respond."
    if cause.startswith("Invalid enum value"):
        return f"is `{quoted[0]}`, which is not one of the allowed values."
    return f"cannot be read: {cause[:1].lower()}{cause[1:]}."
