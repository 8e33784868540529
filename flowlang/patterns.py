"""Regular expressions of authors, run by RE2: linear in the text whatever the pattern.

Decides: the bounds (pattern 1,000 characters, text 256 KiB, 1 MiB of memory a pattern) and that a pattern is searched
for anywhere in the text, as JavaScript's `test` does.
Leaves: when a pattern is asked for to conditions.py.
Python's `re` is never used for them: one evil pattern would stop the executor.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol, cast

import re2  # type: ignore[import-untyped]  # google-re2 ships no types; what is used of it is typed below

PATTERN_LIMIT = 1_000
TEXT_LIMIT = 256 * 1024
_MEMORY_BYTES = 1 << 20


class _Compiled(Protocol):
    def search(self, text: str) -> object | None: ...


def fault_in_pattern(pattern: str) -> str:
    """What is wrong with a pattern, as a sentence; empty when it can be used."""
    if len(pattern) > PATTERN_LIMIT:
        return f"The regular expression has {len(pattern)} characters; at most {PATTERN_LIMIT} are allowed."
    try:
        _compiled(pattern, True)
    except re2.error as error:
        cause = error.args[0] if error.args else ""
        text = cause.decode(errors="replace") if isinstance(cause, bytes) else str(cause)
        return f"The regular expression cannot be used: {text} (look-around and back-references do not exist in RE2)."
    except UnicodeError:
        return "The regular expression holds half of a character; write it anew."
    return ""


def found_in(pattern: str, text: str, *, case_sensitive: bool) -> bool | None:
    """Whether the pattern occurs in the text; None when either is out of bounds or the pattern is none."""
    if len(pattern) > PATTERN_LIMIT or len(text) > TEXT_LIMIT:
        return None
    try:
        return _compiled(pattern, case_sensitive).search(text) is not None
    except (re2.error, UnicodeError):
        return None


@lru_cache(maxsize=512)
def _compiled(pattern: str, case_sensitive: bool) -> _Compiled:
    options = re2.Options()
    options.case_sensitive = case_sensitive
    options.max_mem = _MEMORY_BYTES
    options.log_errors = False
    return cast(_Compiled, re2.compile(pattern, options))
