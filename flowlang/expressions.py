"""Templates: JSON values whose texts hold `{{ expression }}` parts, compiled once and resolved at every run.

Decides: where expressions stand in a text, which are plain paths (read here), which go to the isolate (all of one
template in one call), what names they use, and how results come together: a text that is one single expression keeps
its type, mixed text becomes text.
Leaves: reading to paths.py and values.py (the table of rules), secrets to secret_slots.py, syntax of other expressions
to the jail.

    template = compile_template({"to": "{{trigger.body.mail}}", "text": "Hi {{trigger.body.name.trim()}}"})
    template.expressions                      # ("trigger.body.name.trim()",): for the isolate
    resolve(template, scope, ["Ada"]).value   # {"to": "ada@example.org", "text": "Hi Ada"}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from flowlang.javascript import ScanError, Token, free_names, scan_expression
from flowlang.model import Json
from flowlang.paths import Path, compile_path, parse_path
from flowlang.secret_slots import MASK, Resolved, SecretRef, SecretSlot, fill_secrets
from flowlang.values import as_javascript, as_text

__all__ = [
    "MASK",
    "Expression",
    "ExpressionError",
    "Resolved",
    "SecretRef",
    "SecretSlot",
    "Template",
    "compile_template",
    "expressions_in",
    "field_path",
    "fill_secrets",
    "resolve",
]

CONNECTIONS = "connections"
"""The root that is never resolved with the rest."""

Place = tuple[str | int, ...]
_Build = Callable[[Mapping[str, Json], Sequence[Json]], Json]
_BuildSlot = Callable[[Mapping[str, Json], Sequence[Json]], SecretSlot]


class ExpressionError(Exception):
    """A text holds no proper expression. `field_path` says where in the value, `offset` where in the text."""

    def __init__(self, message: str, field_path: str, offset: int, reason: str = "EXPRESSION_INVALID") -> None:
        super().__init__(message)
        self.message = message
        self.field_path = field_path
        self.offset = offset
        self.reason = reason


class Expression(NamedTuple):
    """One `{{ … }}` of a text: from `start` to `end`, what stands inside, and its path when it is plain."""

    start: int
    end: int
    text: str
    tokens: tuple[Token, ...]
    path: Path | None


class Template(NamedTuple):
    """A compiled value. `values` of `resolve` answer `expressions`, in this order."""

    constant: bool
    """Holds no expression; `value` is the value."""
    value: Json
    plain: bool
    """Needs no isolate: all expressions are plain paths."""
    expressions: tuple[str, ...]
    """The others, for one isolate call."""
    roots: frozenset[str]
    """Names that the expressions may refer to: all that they do, perhaps more."""
    connections: frozenset[str]
    """Names of the connections that it holds secrets of."""
    build: _Build
    """Makes the value, secrets masked."""
    slots: tuple[_BuildSlot, ...]
    """Makes the secret slots."""


def expressions_in(text: str, place: Place = ()) -> list[Expression]:
    """The expressions of one text, in order. Raises ExpressionError."""
    found = []
    start = text.find("{{")
    while start >= 0:
        try:
            tokens, end = scan_expression(text, start + 2)
        except ScanError as error:
            raise ExpressionError(
                f"The expression at character {start + 1} does not end as it should: {error.message}",
                field_path(place),
                error.offset,
            ) from None
        inside = text[start + 2 : end].strip()
        if not tokens:
            raise ExpressionError(
                "The expression is empty; write what it refers to between `{{` and `}}`.", field_path(place), start
            )
        expression = Expression(start, end + 2, inside, tuple(tokens), parse_path(tokens))
        _check_connections(expression, place)
        found.append(expression)
        start = text.find("{{", end + 2)
    return found


def _check_connections(expression: Expression, place: Place) -> None:
    path = expression.path
    if path is None:
        wrong = any(token.text == CONNECTIONS for token in free_names(list(expression.tokens)))
        message = (
            "A connection cannot be part of a larger expression; use it alone as a plain path, "
            "like {{connections.name.secret}}, so that its secret stays masked."
        )
    else:
        wrong = path.root == CONNECTIONS and not (path.keys and isinstance(path.keys[0], str))
        message = "Say which connection: {{connections.name.secret}}."
    if wrong:
        raise ExpressionError(message, field_path(place), expression.start, "CONNECTION_IN_EXPRESSION")


def field_path(place: Place) -> str:
    """A place in a value as people read it: `body.items[0]["X-Id"]`."""
    text = ""
    for key in place:
        if isinstance(key, int):
            text += f"[{key}]"
        elif key.isidentifier():
            text += f".{key}" if text else key
        else:
            text += f'["{key}"]'
    return text


def compile_template(value: Json) -> Template:
    """Compile a JSON value. Raises ExpressionError for the first expression without end or content."""
    compiler = _Compiler()
    build = compiler.node(value, ())
    constant = build is None
    return Template(
        constant=constant,
        value=value if constant else None,
        plain=not compiler.expressions,
        expressions=tuple(compiler.expressions),
        roots=frozenset(compiler.roots),
        connections=frozenset(compiler.connections),
        build=build or _constant(value),
        slots=tuple(compiler.slots),
    )


def resolve(template: Template, scope: Mapping[str, Json], values: Sequence[Json] = ()) -> Resolved:
    """The value in a scope, with the isolate's `values` for `template.expressions`.

    Never raises; what is missing is null.
    """
    if template.constant:
        return Resolved(template.value)
    value = template.build(scope, values)
    if not template.slots:
        return Resolved(value)
    return Resolved(value, tuple([slot(scope, values) for slot in template.slots]))


class _Compiler:
    def __init__(self) -> None:
        self.expressions: list[str] = []
        self.roots: set[str] = set()
        self.connections: set[str] = set()
        self.slots: list[_BuildSlot] = []

    def node(self, value: Json, place: Place) -> _Build | None:
        """What builds this part; None for a constant."""
        if isinstance(value, str):
            return self._text(value, place) if "{{" in value else None
        if isinstance(value, dict):
            return self._object(value, place)
        if isinstance(value, list):
            return self._list(value, place)
        return None

    def _object(self, value: dict[str, Json], place: Place) -> _Build | None:
        builds = {key: self.node(part, (*place, key)) for key, part in value.items()}
        if not any(builds.values()):
            return None
        entries = tuple((key, build or _constant(value[key])) for key, build in builds.items())
        return lambda scope, values: {key: build(scope, values) for key, build in entries}

    def _list(self, value: list[Json], place: Place) -> _Build | None:
        builds = [self.node(part, (*place, index)) for index, part in enumerate(value)]
        if not any(builds):
            return None
        entries = tuple(build or _constant(part) for build, part in zip(builds, value, strict=True))
        return lambda scope, values: [build(scope, values) for build in entries]

    def _text(self, text: str, place: Place) -> _Build:
        parts: list[str | SecretRef | _Build] = []
        at = 0
        for expression in expressions_in(text, place):
            if text[at : expression.start]:
                parts.append(text[at : expression.start])
            parts.append(self._expression(expression))
            at = expression.end
        if text[at:]:
            parts.append(text[at:])
        if any(isinstance(part, SecretRef) for part in parts):
            self.slots.append(_slot(place, parts))
        builds = tuple(_part(part) for part in parts)
        if len(builds) == 1:
            return builds[0]
        return lambda scope, values: "".join([as_text(build(scope, values)) for build in builds])

    def _expression(self, expression: Expression) -> SecretRef | _Build:
        path = expression.path
        if path is None:
            self.roots.update(token.text for token in free_names(list(expression.tokens)))
            self.expressions.append(expression.text)
            return _isolate_value(len(self.expressions) - 1)
        self.roots.add(path.root)
        if path.root == CONNECTIONS:
            name = str(path.keys[0])
            self.connections.add(name)
            return SecretRef(name, path.keys[1:])
        read = compile_path(path)
        return lambda scope, _values: read(scope)


def _constant(value: Json) -> _Build:
    return lambda _scope, _values: value


def _isolate_value(index: int) -> _Build:
    return lambda _scope, values: as_javascript(values[index]) if index < len(values) else None


def _part(part: str | SecretRef | _Build) -> _Build:
    if isinstance(part, str):
        return _constant(part)
    return _constant(MASK) if isinstance(part, SecretRef) else part


def _slot(place: Place, parts: list[str | SecretRef | _Build]) -> _BuildSlot:
    """Text beside a secret is settled now, so that filling at the call needs nothing but the connection."""

    def build(scope: Mapping[str, Json], values: Sequence[Json]) -> SecretSlot:
        settled = [part if isinstance(part, str | SecretRef) else as_text(part(scope, values)) for part in parts]
        return SecretSlot(place, tuple(settled))

    return build
