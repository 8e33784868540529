"""The bytes between the executor and a jail.

Decides: the frame (length, number, sort, body), the sorts of requests and answers, and the shared page.
Leaves: what a request does to engine.py, who sends when to process.py.
Both ends import this module, so it imports next to nothing. All numbers are little-endian.

The shared page holds three numbers. The jail writes which call it runs (`RUNNING`), so the executor knows whom a
limit or a death concerns even when answers are still gathered in the jail. The executor writes which calls the jail
need not begin any more, because they moved elsewhere: those after `SKIP_AFTER` up to `SKIP_UP_TO`. The executor
trusts no number beyond its own list of calls.
"""

from __future__ import annotations

import struct

HEADER = struct.Struct("<IIB")
"""Length of the body, number of the call, sort."""

NUMBER = struct.Struct("<I")

# Requests
SETUP = 1
LEARN_CODE = 2
LEARN_EXPRESSIONS = 3
RUN = 4
EVALUATE = 5
CHECK = 6

# Answers
READY = 1
REFUSED = 2
VALUE = ord("o")
VALUE_WITH_CONSOLE = ord("c")
THREW = ord("e")
INVALID = ord("i")
CHECKED = ord("k")

RUNNING = 0
SKIP_AFTER = 1
SKIP_UP_TO = 2
PAGE_BYTES = 4096

EXIT_REFUSED = 76
EXIT_MEMORY = 77
"""The jail's Python ran out of memory (V8 ends by a signal instead)."""


def frame(number: int, sort: int, body: bytes) -> bytes:
    """One whole frame."""
    return HEADER.pack(len(body), number, sort) + body


def pack_parts(parts: list[bytes]) -> bytes:
    """Several byte strings as one body."""
    pieces: list[bytes] = []
    for part in parts:
        pieces.append(NUMBER.pack(len(part)))
        pieces.append(part)
    return b"".join(pieces)


def unpack_parts(body: bytes) -> list[bytes]:
    """The reverse of `pack_parts`."""
    parts: list[bytes] = []
    at = 0
    while at < len(body):
        start = at + NUMBER.size
        at = start + NUMBER.unpack_from(body, at)[0]
        parts.append(body[start:at])
    return parts
