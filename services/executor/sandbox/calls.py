"""One call on its way through the sandbox, and what its answer becomes.

Decides: what is sent for a call, what must be known by the jail first, how an answer's bytes become a result or an
error.
Leaves: which jail takes it to pool.py.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from chassis.documents import MAX_DEPTH, deeper_than
from services.executor.sandbox import wire
from services.executor.sandbox.errors import CodeThrew, OutputInvalid, SandboxError

SourceKind = Literal["expression", "javascript", "typescript"]

_IDENTIFIERS = re.compile(r"[^\W\d][\w$]*|\$[\w$]*")


@dataclass(frozen=True)
class CodeUnit:
    """The source of one code step of one published version."""

    version_id: str
    step_id: str
    language: Literal["javascript", "typescript"]
    source: str


class CodeResult(msgspec.Struct, frozen=True):
    """What a code step gave: JSON, and the lines it wrote to the console."""

    output: bytes
    console: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceProblem:
    """Why a text does not parse; line and column count from 1 in the author's text."""

    message: str
    line: int
    column: int


@dataclass(frozen=True)
class ExpressionKey:
    """Expressions of one step together with the names they read."""

    version_id: str
    names: tuple[str, ...]
    expressions: tuple[str, ...]


class _Thrown(msgspec.Struct):
    message: str = ""
    frames: list[tuple[str, int, int]] = []
    console: list[str] = []
    expression: int | None = None


class Call:
    """A call, from the moment it is asked for until its future is done."""

    __slots__ = ("body", "fresh", "future", "key", "limit_s", "project_id", "sort", "version_id")

    def __init__(
        self,
        project_id: str,
        sort: int,
        key: CodeUnit | ExpressionKey | None,
        body: bytes,
        limit_s: float,
        future: asyncio.Future[object],
    ) -> None:
        self.project_id = project_id
        self.sort = sort
        self.key = key
        self.version_id = key.version_id if key is not None else ""
        self.body = body
        self.limit_s = limit_s
        self.future = future
        self.fresh = False
        """Whether it ended one jail already and must have one that served nobody."""

    def fail(self, error: Exception) -> None:
        """Ends the call without a value, unless nobody waits for it any more."""
        if not self.future.done():
            self.future.set_exception(error)

    def settle(self, sort: int, body: bytes) -> None:
        """Ends the call with the jail's answer. Never raises: others' answers come behind this one."""
        if self.future.done():
            return
        if sort == wire.VALUE:
            self._give(body if self.sort == wire.EVALUATE else CodeResult(body), body)
        elif sort == wire.VALUE_WITH_CONSOLE:
            lines, _, output = body.partition(b"\n")
            try:
                console = msgspec.json.decode(lines, type=tuple[str, ...])
            except msgspec.DecodeError:
                self.fail(_unreadable())
            else:
                self._give(CodeResult(output, console), output)
        elif sort == wire.CHECKED:
            self.future.set_result(body)
        else:
            self.future.set_exception(_error(sort, body))

    def _give(self, result: CodeResult | bytes, output: bytes) -> None:
        if deeper_than(output):
            console = result.console if isinstance(result, CodeResult) else ()
            self.fail(OutputInvalid(f"The value nests deeper than the {MAX_DEPTH} levels allowed", console))
        else:
            self.future.set_result(result)


def learning(number: int, key: CodeUnit | ExpressionKey) -> bytes:
    """The frame that tells a jail a unit or a set of expressions."""
    if isinstance(key, CodeUnit):
        return wire.frame(
            number, wire.LEARN_CODE, msgspec.json.encode((key.version_id, key.step_id, key.language, key.source))
        )
    return wire.frame(number, wire.LEARN_EXPRESSIONS, msgspec.json.encode((key.version_id, key.names, key.expressions)))


def names_read(expressions: Sequence[str]) -> frozenset[str] | None:
    """The identifiers in the expressions; a few too many do no harm. None: all, a name may be spelled with escapes."""
    joined = "\n".join(expressions)
    return None if "\\u" in joined else frozenset(_IDENTIFIERS.findall(joined))


def documents_read(scope: Mapping[str, bytes], names: frozenset[str] | None) -> tuple[tuple[str, ...], list[bytes]]:
    """The part of a scope that the expressions can read, names that JavaScript cannot spell left out."""
    chosen = [name for name in scope if (names is None or name in names) and _spelled(name)]
    return tuple(chosen), [scope[name] for name in chosen]


def problems(body: bytes) -> list[SourceProblem | None]:
    """What a check answered."""
    found = msgspec.json.decode(body, type=list[tuple[str, int, int] | None])
    return [None if problem is None else SourceProblem(*problem) for problem in found]


def _spelled(name: str) -> bool:
    return name.isidentifier() and name not in _RESERVED


def _error(sort: int, body: bytes) -> SandboxError:
    try:
        thrown = msgspec.json.decode(body, type=_Thrown)
    except msgspec.DecodeError:
        return _unreadable()
    console = tuple(thrown.console)
    if sort == wire.INVALID:
        return OutputInvalid(thrown.message, console)
    if sort != wire.THREW:
        return SandboxError("The jail gave an answer of an unknown sort")
    message = thrown.message if thrown.expression is None else f"Expression {thrown.expression + 1}: {thrown.message}"
    _, line, column = thrown.frames[0] if thrown.frames else ("", None, None)
    stack = "\n".join(f"at {name or 'module'} ({line}:{column})" for name, line, column in thrown.frames)
    return CodeThrew(message, line, column, stack=stack, expression=thrown.expression, console=console)


def _unreadable() -> SandboxError:
    return SandboxError("The jail gave an answer that cannot be read")


_RESERVED = frozenset(
    re.findall(
        r"\w+",
        """
        arguments await break case catch class const continue debugger default delete do else enum
        eval export extends false finally for function if implements import in instanceof interface
        let new null package private protected public return static super switch this throw true try
        typeof var void while with yield
        """,
    )
)
