"""Multipart forms: fields and files, found in a body that is in memory already.

Decides: how parts become fields and files, the limits of both, and what is left of a file's name (no path, no
controls).
Leaves: storing the files to uploads.py.
"""

import re
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from chassis.errors import Invalid
from services.webhooks.bodies import grouped

_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
_MAX_PART_HEADER_BYTES = 8 * 1024


@dataclass(slots=True)
class FilePart:
    """One file of a form."""

    field: str
    name: str
    content_type: str
    content: bytes


@dataclass(slots=True)
class Multipart:
    """A parsed form: fields as in a URL-encoded one, and files."""

    fields: dict[str, str | list[str]]
    files: list[FilePart]


@dataclass(slots=True)
class _Part:
    headers: dict[str, str] = field(default_factory=dict)
    content: bytearray = field(default_factory=bytearray)


class _Collector:
    """The parser's callbacks: gathers parts, refuses what goes over a limit while it is read."""

    def __init__(self, max_parts: int) -> None:
        self.parts: list[_Part] = []
        self.ended = False
        self._max_parts = max_parts
        self._name = bytearray()
        self._value = bytearray()
        self._header_bytes = 0

    def on_part_begin(self) -> None:
        if len(self.parts) >= self._max_parts:
            raise _invalid(f"it has more than {self._max_parts} parts")
        self.parts.append(_Part())
        self._header_bytes = 0

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]
        self._count(end - start)

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._count(end - start)

    def on_header_end(self) -> None:
        self.parts[-1].headers[self._name.decode("latin-1").lower()] = self._value.decode("utf-8", "replace")
        self._name.clear()
        self._value.clear()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].content += data[start:end]

    def on_end(self) -> None:
        self.ended = True

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > _MAX_PART_HEADER_BYTES:
            raise _invalid("a part's headers are over 8 KiB")


def read_multipart(body: bytes, content_type: str, max_fields: int, max_files: int) -> Multipart:
    """The fields and files of a multipart body, in their order. Raises: Invalid FORM_INVALID."""
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:  # RFC 2046, 5.1.1
        raise _invalid("its content type names no boundary of 1 to 70 characters")
    collector = _Collector(max_fields + max_files)
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": collector.on_part_begin,
            "on_header_field": collector.on_header_field,
            "on_header_value": collector.on_header_value,
            "on_header_end": collector.on_header_end,
            "on_part_data": collector.on_part_data,
            "on_end": collector.on_end,
        },
    )
    try:
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise _invalid(str(error).rstrip(".")) from error
    if not collector.ended:
        raise _invalid("its closing boundary is missing")
    return _sorted_out(collector.parts, max_files)


def _sorted_out(parts: list[_Part], max_files: int) -> Multipart:
    pairs: list[tuple[str, str]] = []
    files: list[FilePart] = []
    for part in parts:
        disposition, options = parse_options_header(part.headers.get("content-disposition", ""))
        if disposition != b"form-data" or b"name" not in options:
            raise _invalid("a part has no name")
        name = options[b"name"].decode("utf-8", "replace")
        if b"filename" in options:
            file_name = clean_name(options[b"filename"].decode("utf-8", "replace"))
            files.append(FilePart(name, file_name, part.headers.get("content-type", "")[:255], bytes(part.content)))
            continue
        try:
            pairs.append((name, part.content.decode()))
        except UnicodeDecodeError as error:
            raise _invalid(f"the field {name[:80]!r} is not UTF-8") from error
    if len(files) > max_files:
        raise _invalid(f"it has more than {max_files} files")
    return Multipart(grouped(pairs), files)


def clean_name(name: str) -> str:
    """What is kept of a file's name: its last part without controls, at most 255 characters; never used as a path."""
    last = re.split(r"[/\\]", _CONTROLS.sub("", name))[-1].strip()
    return last[:255] if last not in ("", ".", "..") else "file"


def _invalid(why: str) -> Invalid:
    return Invalid("FORM_INVALID", f"The multipart form cannot be read: {why}.")
