"""Text with parts blanked out, everything else in its place.

Decides: a blanked part becomes spaces, one for each UTF-16 unit, its line ends stay; so V8's lines and columns stay
the author's.
Leaves: what to blank to modules.py and typescript.py.
"""

from __future__ import annotations

import tree_sitter

_LINE_ENDS = "\n\r\u2028\u2029"


class Problem(Exception):  # noqa: N818 - a finding about the author's text, not a failure of ours
    """Why a source cannot be run, with the place in the author's text (both from 1)."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


class Blanks:
    """Gathers edits of one source, then applies them in one pass."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._edits: list[tuple[int, int, str | None]] = []
        self._covered: set[tuple[int, int]] = set()

    def blank(self, node: tree_sitter.Node) -> None:
        """Takes a node away."""
        self._covered.add((node.start_byte, node.end_byte))
        self._edits.append((node.start_byte, node.end_byte, None))

    def blank_range(self, start: int, end: int) -> None:
        """Takes the bytes from `start` to before `end` away."""
        self._edits.append((start, end, None))

    def statement(self, node: tree_sitter.Node) -> None:
        """Takes a whole statement away and leaves `;`, so the lines before and after do not grow together."""
        self._covered.add((node.start_byte, node.end_byte))
        self._edits.append((node.start_byte, node.start_byte + 1, ";"))
        self._edits.append((node.start_byte + 1, node.end_byte, None))

    def replace(self, start: int, end: int, by: str) -> None:
        """Puts other text in place of some bytes."""
        self._edits.append((start, end, by))

    def insert(self, at: int, text: str) -> None:
        """Adds text; columns behind it on that line move."""
        self._edits.append((at, at, text))

    def covers(self, node: tree_sitter.Node) -> bool:
        """Whether exactly this node was taken away."""
        return (node.start_byte, node.end_byte) in self._covered

    def problem(self, node: tree_sitter.Node, message: str) -> Problem:
        """A finding at the place where a node begins."""
        start = self._text.rfind(b"\n", 0, node.start_byte) + 1
        before = self._text[start : node.start_byte].decode("utf-8", "replace")
        return Problem(message, node.start_point[0] + 1, sum(2 if char > "\uffff" else 1 for char in before) + 1)

    def slice(self, start: int, end: int) -> bytes:
        """The author's bytes."""
        return self._text[start:end]

    def result(self) -> str:
        """The text with all edits."""
        parts: list[str] = []
        position = 0
        for begin, end, by in sorted(self._edits, key=lambda edit: (edit[0], edit[1])):
            if end < position or (end == position and begin < end):
                continue  # inside something that is gone already
            start = max(begin, position)
            parts.append(self._decoded(position, start))
            parts.append(_spaces(self._decoded(start, end)) if by is None else by)
            position = end
        parts.append(self._decoded(position, len(self._text)))
        return "".join(parts)

    def _decoded(self, start: int, end: int) -> str:
        return self._text[start:end].decode("utf-8", "surrogatepass")


def _spaces(text: str) -> str:
    return "".join(char if char in _LINE_ENDS else "  " if char > "\uffff" else " " for char in text)
