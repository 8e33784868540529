"""V8 inside a jail: realms, compiled units, one call after the other.

Decides: one realm a published version, one compiled function a unit, that only text crosses into V8 and back, how a
place in V8's words becomes a place in the author's source.
Leaves: what a realm contains to realm.js, modules and types to modules.py, frames and the pipe to jail.py.

Realms are never dropped: when V8 collects a context, STPyV8 13.1 reads it once more and crashes. The executor
replaces a jail that has seen too many versions.

STPyV8 would hand Python objects to JavaScript if any were passed. So the arguments of every call are `str`, the
context is made without a Python global, and what comes back counts as a result only when it is `str`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable

import _STPyV8 as v8  # type: ignore[import-not-found]  # a C module without types

from services.executor.sandbox.blanks import Problem
from services.executor.sandbox.modules import function_body

Function = Callable[..., object]

with open(os.path.join(os.path.dirname(__file__), "realm.js"), encoding="utf-8") as _file:
    _PRELUDE = _file.read()  # read at import: later there are no files

# A wide young generation: near its limit V8 collects for one second before it gives up; with a narrow one, for ten.
_FLAGS = "--max-semi-space-size=16 --min-semi-space-size=4 --single-threaded --no-expose-wasm"
_BODY_LINES_BEFORE = 3  # V8's own two lines of `function anonymous(` and ours of "use strict"
_PLACE = re.compile(r"^(?:\w*Error): (.*) \( .* @ (\d+) : (\d+) \)", re.DOTALL)
_ASTRAL = re.compile("[\U00010000-\U0010ffff]")
_WARM_UP = """
export const code = async (inputs) => {
  const day = new Intl.DateTimeFormat('de-DE', { dateStyle: 'full', timeZone: 'Europe/Berlin' }).format(new Date(0));
  return { ...inputs, day, lines: [3, 1].sort().map((n: number): string => `${n}`), found: /(b+)/.exec('abbc')?.[1] };
};
"""


class Realm:
    """One context with frozen built-ins, and the doors into it."""

    def __init__(self, prelude: str, limits: tuple[int, int, int]) -> None:
        self.context = v8.JSContext()
        self.context.enter()
        try:
            doors = self.context.eval(prelude)(*limits)
            self.code, self.take, self.expressions, self.check_expression, self.check_body = (
                doors[i] for i in range(5)
            )
        finally:
            self.context.leave()


class Unit:
    """A code step as it was told, and its function once it was called."""

    __slots__ = ("compiled", "language", "source", "step_id", "version_id")

    def __init__(self, version_id: str, step_id: str, language: str, source: str) -> None:
        self.version_id = version_id
        self.step_id = step_id
        self.language = language
        self.source = source
        self.compiled: tuple[Realm, Function] | None = None


class ExpressionSet:
    """The expressions of a step with the names they see, and their function once they were called."""

    __slots__ = ("evaluate", "names", "texts", "version_id")

    def __init__(self, version_id: str, names: list[str], texts: list[str]) -> None:
        self.version_id = version_id
        self.names = names
        self.texts = texts
        self.evaluate: Function | None = None


class Engine:
    """All realms of one jail."""

    def __init__(self, heap_mib: int, limits: tuple[int, int, int]) -> None:
        self._prelude = _PRELUDE
        self._limits = limits
        v8.JSEngine.setFlags(f"--max-old-space-size={heap_mib} {_FLAGS}")
        v8.JSPlatform().init()
        self._isolate = v8.JSIsolate()
        self._isolate.enter()
        self._spare: Realm | None = Realm(self._prelude, limits)
        self._entered = self._spare
        self._entered.context.enter()
        self._realms: dict[str, Realm] = {}
        self._units: dict[int, Unit] = {}
        self._sets: dict[int, ExpressionSet] = {}

    def warm_up(self) -> None:
        """Makes V8, its time zones and the parsers load all they ever load."""
        self.learn_code(0, Unit("", "warm-up", "typescript", _WARM_UP))
        for _ in range(3):
            answer = self.run(0, '{"a": 1}')
            if not answer.startswith("o"):
                raise RuntimeError(f"V8 does not work here: {answer}")
        self.learn_expressions(0, ExpressionSet("", ["a"], ["a.b + 1"]))
        self.evaluate(0, ['{"b": 1}'])
        self.check([("javascript", "export const code = (;"), ("expression", "1 +")])
        self._spare = Realm(self._prelude, self._limits)

    def learn_code(self, number: int, unit: Unit) -> None:
        """Remembers a unit. It is compiled when it is first called, so its time counts as the call's."""
        self._units[number] = unit

    def learn_expressions(self, number: int, expressions: ExpressionSet) -> None:
        """Remembers expressions, as `learn_code` does."""
        self._sets[number] = expressions

    def run(self, number: int, input_json: str) -> str:
        """One call of a code step. The answer's first character is its sort (wire.py)."""
        unit = self._units[number]
        if unit.compiled is None:
            try:
                unit.compiled = self._compile(unit)
            except Problem as problem:
                return _threw(problem.message, [["", problem.line, problem.column]])
        realm, run = unit.compiled
        self._enter(realm)
        answer = run(_units(input_json))
        if answer == "p":
            answer = realm.take()
        return _text(answer)

    def evaluate(self, number: int, documents: list[str]) -> str:
        """All expressions of a step in one call."""
        known = self._sets[number]
        if known.evaluate is None:
            made = self._realm(known.version_id).expressions(json.dumps(known.names), json.dumps(known.texts))
            if isinstance(made, str):
                index, _, message = made.partition(":")
                return _threw(message, [], expression=int(index))
            known.evaluate = made
        self._realm(known.version_id)
        return _text(known.evaluate(*map(_units, documents)))

    def check(self, sources: list[tuple[str, str]]) -> list[list[object] | None]:
        """Parses without running; a problem is [message, line, column]."""
        return [
            self._check_expression(text) if kind == "expression" else self._check_code(kind, text)
            for kind, text in sources
        ]

    def _compile(self, unit: Unit) -> tuple[Realm, Function]:
        body = function_body(unit.language, unit.source)
        file = f"{re.sub(r'[^A-Za-z0-9_.-]', '_', unit.step_id)[:60]}.js"
        realm = self._realm(unit.version_id)
        text, asynchronous = self._accepted(realm, body, file)
        made = realm.code(_units(text), asynchronous, file, _BODY_LINES_BEFORE)
        if isinstance(made, str):
            raise Problem(made, 1, 1)
        return realm, made

    def _accepted(self, realm: Realm, body: str, file: str) -> tuple[str, bool]:
        """The text that V8 takes as a function body; an asynchronous one only when the module awaits at its top."""
        text = f'"use strict";\n{body}\n//# sourceURL={file}'
        message = _text(realm.check_body(_units(text), False))
        if not message:
            return text, False
        if "await" in body and not realm.check_body(_units(text), True):
            return text, True
        raise self._syntax_problem(f'(function () {{"use strict";\n{body}\n}})', message)

    def _check_code(self, language: str, source: str) -> list[object] | None:
        try:
            self._accepted(self._realm(""), function_body(language, source), "check.js")
        except Problem as problem:
            return [problem.message, problem.line, problem.column]
        return None

    def _check_expression(self, text: str) -> list[object] | None:
        message = _text(self._realm("").check_expression(_units(text)))
        if not message:
            return None
        problem = self._syntax_problem(f"(\n{text}\n)", message)
        return [problem.message, problem.line, problem.column]

    def _syntax_problem(self, script: str, message: str) -> Problem:
        """Asks V8 for the place of a syntax error: compiled, never run. The author's text begins on the second line."""
        try:
            v8.JSEngine().compile(_units(script))
        except SyntaxError as error:
            found = _PLACE.match(str(error))
            if found:
                authors = script.split("\n")[1:-1]
                line, column = int(found[2]) - 1, int(found[3]) + 1
                if line > len(authors):
                    end = "SyntaxError: Unexpected end of input"
                    return Problem(end, len(authors), len(_units(authors[-1])) + 1)
                return Problem(f"SyntaxError: {found[1]}", max(line, 1), column)
        if "Single function literal" in message:
            message = "SyntaxError: a bracket closes more than was opened"
        return Problem(message, 1, 1)

    def _realm(self, version_id: str) -> Realm:
        realm = self._realms.get(version_id)
        if realm is None:
            realm, self._spare = self._spare or Realm(self._prelude, self._limits), None
            self._realms[version_id] = realm
        return self._enter(realm)

    def _enter(self, realm: Realm) -> Realm:
        """V8 asks the entered context for its rights, so calls into a realm are made from that realm."""
        if realm is not self._entered:
            self._entered.context.leave()
            realm.context.enter()
            self._entered = realm
        return realm


def _units(text: str) -> str:
    """The text as UTF-16 units: STPyV8 cuts every character to 16 bits on its way in."""
    if text.isascii():
        return text
    return _ASTRAL.sub(lambda found: _pair(found[0]), text)


def _pair(character: str) -> str:
    above = ord(character) - 0x10000
    return chr(0xD800 + (above >> 10)) + chr(0xDC00 + (above & 0x3FF))


def _text(answer: object) -> str:
    if type(answer) is not str:
        raise TypeError("Something other than text came out of V8")
    return answer


def _threw(message: str, frames: list[list[object]], **more: object) -> str:
    return "e" + json.dumps({"message": message, "frames": frames, "console": [], **more})
