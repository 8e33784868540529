"""Just enough JavaScript to find where an expression ends and which names it uses.

Decides: how text splits into tokens (strings, template literals, comments, regular expressions are never mistaken
for braces), where the `}}` of `{{ … }}` is, and which identifiers are free names.
Leaves: whether the expression parses to the jail, which asks V8; what a name means to validate.py.
Invariant: time is linear in the text; nothing here backtracks.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Kind = Literal["name", "number", "string", "template", "regex", "punctuator"]


class Token(NamedTuple):
    """One token of the text `[start, end)`. A template literal's `${…}` parts follow it as tokens of their own."""

    kind: Kind
    text: str
    start: int
    end: int


class ScanError(Exception):
    """The text ends, or a bracket closes, where it must not. `offset` points to the cause."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


RESERVED = _words(
    "arguments await break case catch class const continue debugger default delete do else enum eval export "
    "extends false finally for function if implements import in instanceof interface let new null package "
    "private protected public return static super switch this throw true try typeof var void while with "
    "yield"
)
"""Words that are no free names."""

GLOBALS = _words(
    "undefined NaN Infinity globalThis Object Array String Number Boolean BigInt Symbol Math JSON Date RegExp Map Set "
    "WeakMap WeakSet Promise Proxy Reflect Error TypeError RangeError SyntaxError ReferenceError EvalError URIError "
    "AggregateError Intl ArrayBuffer SharedArrayBuffer DataView Atomics Int8Array Uint8Array Uint8ClampedArray "
    "Int16Array Uint16Array Int32Array Uint32Array Float32Array Float64Array BigInt64Array BigUint64Array WeakRef "
    "FinalizationRegistry Iterator Function URL URLSearchParams TextEncoder TextDecoder structuredClone "
    "parseInt parseFloat isNaN isFinite encodeURIComponent decodeURIComponent encodeURI decodeURI "
    "atob btoa"
)
"""Names that the language itself provides; no step can be called so."""

_REGEX_AFTER_WORDS = _words(
    "return typeof instanceof in of new delete void throw case do else yield await default extends"
)
_SPACE = re.compile(r"[\s\ufeff]+")
_NAME = re.compile(r"[#\w$\u200c\u200d\\]+")
_NUMBER = re.compile(r"0[xXoObB][\da-fA-F_]+n?|(?:\d[\d_]*)?\.?\d[\d_]*(?:\.(?!\.))?(?:[eE][+-]?\d+)?n?")
_PUNCTUATOR = re.compile(
    r"\.\.\.|=>|\?\.(?!\d)|\?\?=?|&&=?|\|\|=?|\+\+|--|\*\*=?|[=!]==?|[<>+\-*%&|^]=|<<|>>>?|.", re.S
)
_CLOSES = {")": "(", "]": "[", "}": "{"}


class _Scanner:
    def __init__(self, text: str, at: int) -> None:
        self.text = text
        self.at = at
        self.tokens: list[Token] = []
        self.open: list[tuple[str, int]] = []

    def run(self, *, until_braces: bool) -> int:
        """Scan to the end of the text, or to the `}}` that closes the expression; answers where that stands."""
        text = self.text
        while self.at < len(text):
            char = text[self.at]
            if char == "}" and self._closes_expression(until_braces=until_braces):
                return self.at
            self._step(char)
        if self.open:
            opening, offset = self.open[-1]
            raise ScanError(f"`{'${' if opening == '`' else opening}` is never closed.", offset)
        if until_braces:
            raise ScanError("`}}` is missing at the end of the expression.", self.at)
        return self.at

    def _closes_expression(self, *, until_braces: bool) -> bool:
        if self.open:
            return False
        if until_braces and self.text.startswith("}}", self.at):
            return True
        raise ScanError("`}` closes nothing; take it out or open it with `{`.", self.at)

    def _step(self, char: str) -> None:
        if space := _SPACE.match(self.text, self.at):
            self.at = space.end()
        elif char in "'\"":
            self._string(char)
        elif char == "`":
            self._template()
        elif char == "/":
            self._slash()
        elif char.isdigit() or (char == "." and self.text[self.at + 1 : self.at + 2].isdigit()):
            self._matched("number", _NUMBER)
        elif _NAME.match(self.text, self.at):
            self._matched("name", _NAME)
        else:
            self._punctuator()

    def _add(self, kind: Kind, end: int) -> None:
        self.tokens.append(Token(kind, self.text[self.at : end], self.at, end))
        self.at = end

    def _matched(self, kind: Kind, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        self._add(kind, match.end() if match else self.at + 1)

    def _string(self, quote: str) -> None:
        at = self.at + 1
        while at < len(self.text):
            char = self.text[at]
            if char == quote:
                self._add("string", at + 1)
                return
            if char == "\n":
                break
            at += 2 if char == "\\" else 1
        raise ScanError(f"The text that begins with {quote} is never closed.", self.at)

    def _template(self) -> None:
        """From a backtick, or from the `}` that ends a `${…}`, to the next `${` or the closing backtick."""
        at = self.at + 1
        while at < len(self.text):
            char = self.text[at]
            if char == "`":
                self._add("template", at + 1)
                return
            if char == "$" and self.text.startswith("${", at):
                self.open.append(("`", at))
                self._add("template", at + 2)
                return
            at += 2 if char == "\\" else 1
        raise ScanError("The template literal that begins with ` is never closed.", self.at)

    def _slash(self) -> None:
        text, at = self.text, self.at
        if text.startswith("//", at):
            end = text.find("\n", at)
            self.at = len(text) if end < 0 else end
        elif text.startswith("/*", at):
            end = text.find("*/", at + 2)
            if end < 0:
                raise ScanError("The comment that begins with /* is never closed.", at)
            self.at = end + 2
        elif self._regex_may_begin():
            self._regex()
        else:
            self._add("punctuator", at + (2 if text.startswith("/=", at) else 1))

    def _regex_may_begin(self) -> bool:
        if not self.tokens:
            return True
        last = self.tokens[-1]
        if last.kind == "punctuator":
            return last.text not in (")", "]", "}", "++", "--")
        if last.kind == "name":
            return last.text in _REGEX_AFTER_WORDS
        return last.kind == "template" and last.text.endswith("${")

    def _regex(self) -> None:
        at, in_class = self.at + 1, False
        while at < len(self.text) and self.text[at] != "\n":
            char = self.text[at]
            if char == "/" and not in_class:
                self._add("regex", at + 1)
                if flags := _NAME.match(self.text, self.at):
                    self.at = flags.end()
                return
            in_class = char == "[" or (in_class and char != "]")
            at += 2 if char == "\\" else 1
        raise ScanError("The regular expression that begins with / is never closed.", self.at)

    def _punctuator(self) -> None:
        char = self.text[self.at]
        if char in "([{":
            self.open.append((char, self.at))
        elif char in ")]}":
            if char == "}" and self.open and self.open[-1][0] == "`":
                self.open.pop()
                self._template()
                return
            if not self.open or self.open[-1][0] != _CLOSES[char]:
                raise ScanError(f"`{char}` closes nothing; take it out or open it with `{_CLOSES[char]}`.", self.at)
            self.open.pop()
        self._matched("punctuator", _PUNCTUATOR)


def scan_expression(text: str, start: int) -> tuple[list[Token], int]:
    """Tokens of the expression that begins at `start`, and where its closing `}}` stands. Raises ScanError."""
    scanner = _Scanner(text, start)
    end = scanner.run(until_braces=True)
    return scanner.tokens, end


def scan(text: str) -> list[Token]:
    """Tokens of a whole text of JavaScript. Raises ScanError."""
    scanner = _Scanner(text, 0)
    scanner.run(until_braces=False)
    return scanner.tokens


def free_names(tokens: list[Token]) -> list[Token]:
    """Names that may stand for something outside the expression: no properties, object keys, words, built-in names.

    Names that the expression itself declares (parameters of an arrow function) are among them: too many, never too few.
    """
    found = []
    for index, token in enumerate(tokens):
        if token.kind != "name" or token.text in RESERVED or token.text in GLOBALS:
            continue
        before = tokens[index - 1].text if index else ""
        after = tokens[index + 1].text if index + 1 < len(tokens) else ""
        is_key = after == ":" and before in ("{", ",")
        if before not in (".", "?.") and not is_key:
            found.append(token)
    return found


def declared_names(tokens: list[Token]) -> frozenset[str]:
    """Names that the expression declares itself: parameters of arrow functions, `const`, `let`, `var`, `catch`."""
    found: set[str] = set()
    for index, token in enumerate(tokens):
        if token.text == "=>" and index:
            found |= _pattern_before(tokens, index - 1)
        elif token.text in ("const", "let", "var", "function", "catch", "class"):
            found |= _pattern_after(tokens, index + 1)
    return frozenset(found)


def _pattern_before(tokens: list[Token], index: int) -> set[str]:
    if tokens[index].kind == "name":
        return {tokens[index].text}
    return _bracketed(tokens, range(index, -1, -1), ")]}", "([{")


def _pattern_after(tokens: list[Token], index: int) -> set[str]:
    names: set[str] = set()
    while index < len(tokens) and tokens[index].kind == "name":
        names.add(tokens[index].text)
        index += 1
    if index < len(tokens) and tokens[index].text in "([{":
        names |= _bracketed(tokens, range(index, len(tokens)), "([{", ")]}")
    return names


def _bracketed(tokens: list[Token], order: range, opening: str, closing: str) -> set[str]:
    names: set[str] = set()
    depth = 0
    for index in order:
        token = tokens[index]
        if token.kind == "name":
            names.add(token.text)
        elif token.kind == "punctuator":
            depth += (token.text in opening) - (token.text in closing)
        if depth <= 0:
            break
    return names
