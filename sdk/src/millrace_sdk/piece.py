"""How a piece is declared: its actions, its triggers, and what the platform must know about each.

Decides: the form of a declaration, and what is refused while the piece is imported (a wrong name, an undeclared input,
a name twice).
Leaves: when a barrier is needed and what happens after an interruption to the executor, which reads `effect` and
`on_interruption`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar, cast, get_type_hints

from .context import Context
from .decode import decode_input
from .errors import ActionFailed
from .fields import Input
from .store import StoreOperation
from .values import Effect, Json, OnInterruption

_NAME = re.compile(r"^[a-z][a-z0-9_]{0,63}$")
_VERSION = re.compile(r"^\d+\.\d+\.\d+$")

I = TypeVar("I", bound=Input)  # noqa: E741 - the one type variable of inputs

EffectFor: TypeAlias = Callable[[Mapping[str, Json]], Effect]
"""Tells the effect from the input as it stands in the flow: texts with `{{ }}` are not known yet, missing fields are
not there.
"""


class DeclarationError(Exception):
    """A piece is declared in a way that cannot work; raised while it is imported, for its author to mend."""


@dataclass(frozen=True, slots=True)
class Action(Generic[I]):
    """Something a step can do. Made by `@action`; call it like the function it was made from."""

    name: str
    title: str
    summary: str
    input_type: type[I]
    effect: Effect
    on_interruption: OnInterruption
    run: Callable[[Context, I], Awaitable[Json]]
    effect_of: EffectFor | None = None

    async def __call__(self, ctx: Context, input: I) -> Json:
        """Carries the action out."""
        return await self.run(ctx, input)

    def effect_for(self, constant_input: Mapping[str, Json]) -> Effect:
        """The effect of a step with this input, known before it runs. What cannot be told counts as the declared
        effect.
        """
        return self.effect_of(constant_input) if self.effect_of else self.effect

    def decode(self, data: bytes) -> I:
        """Reads the action's input from JSON. Raises InputInvalid, naming the field."""
        return decode_input(self.input_type, data)


@dataclass(frozen=True, slots=True)
class StoreAction(Generic[I]):
    """A step's operation on the key-value store. Made by `@store_action`; it plans, the platform performs, exactly
    once.
    """

    name: str
    title: str
    summary: str
    input_type: type[I]
    plan: Callable[[I], StoreOperation]

    effect: Literal["store"] = "store"
    on_interruption: OnInterruption = "retry"

    def __call__(self, input: I) -> StoreOperation:
        """The operation this input asks for."""
        return self.plan(input)

    def effect_for(self, constant_input: Mapping[str, Json]) -> Effect:  # noqa: ARG002 - same form as Action's
        """Always `store`."""
        return self.effect

    def decode(self, data: bytes) -> I:
        """Reads the action's input from JSON. Raises InputInvalid, naming the field."""
        return decode_input(self.input_type, data)


@dataclass(frozen=True, slots=True)
class Trigger:
    """Something that starts a flow. The platform listens; the piece declares what can be set."""

    name: str
    title: str
    summary: str
    input_type: type[Input]

    def __post_init__(self) -> None:
        _check_name("trigger", self.name)


AnyAction: TypeAlias = Action[Any] | StoreAction[Any]
"""An action of whatever input."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece: what it is called, and what it offers. `version` is three numbers; flows keep the exact one they were
    published with.
    """

    name: str
    version: str
    title: str
    summary: str
    actions: Sequence[AnyAction] = ()
    triggers: Sequence[Trigger] = ()

    def __post_init__(self) -> None:
        _check_name("piece", self.name)
        if not _VERSION.match(self.version):
            raise DeclarationError(
                f"The version of piece {self.name} is {self.version!r}; write three numbers, as 1.2.0."
            )
        for kind, names in (("action", [a.name for a in self.actions]), ("trigger", [t.name for t in self.triggers])):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise DeclarationError(f"Piece {self.name} has {kind} {', '.join(twice)} more than once.")

    def action(self, name: str) -> AnyAction:
        """The action of this name. Raises ActionFailed UNKNOWN_ACTION, naming those there are."""
        for candidate in self.actions:
            if candidate.name == name:
                return candidate
        offered = ", ".join(sorted(a.name for a in self.actions)) or "none"
        raise ActionFailed("UNKNOWN_ACTION", f"Piece {self.name} has no action {name!r}. It has: {offered}.")


def action(
    *,
    title: str,
    summary: str,
    effect: Literal["pure", "read", "effect"] = "effect",
    on_interruption: OnInterruption = "retry",
    effect_for: EffectFor | None = None,
    name: str = "",
) -> Callable[[Callable[[Context, I], Awaitable[Json]]], Action[I]]:
    """Makes an action of `async def name(ctx: Context, input: SomeInput) -> Json`.

    `effect`: in doubt leave it; `pure` and `read` are promises, since such a step may run again after a crash without a
    trace.
    `on_interruption`: `fail` when the outside system does not understand idempotency keys and twice is worse than not
    at all.
    `effect_for`: a closer answer from the constant part of the input; whatever it cannot tell, it must answer with
    `effect`.
    `name`: the function's own unless given. Raises DeclarationError.
    """

    def made(function: Callable[[Context, I], Awaitable[Json]]) -> Action[I]:
        if not inspect.iscoroutinefunction(function):
            raise DeclarationError(f"Action {function!r} must be an `async def`.")
        return Action(
            name=_checked("action", name or function.__name__),
            title=title,
            summary=summary,
            input_type=_input_type(function, ("ctx", "input")),
            effect=effect,
            on_interruption=on_interruption,
            run=function,
            effect_of=effect_for,
        )

    return made


def store_action(
    *, title: str, summary: str, name: str = ""
) -> Callable[[Callable[[I], StoreOperation]], StoreAction[I]]:
    """Makes a store action of `def name(input: SomeInput) -> StoreOperation`. Raises DeclarationError."""

    def made(function: Callable[[I], StoreOperation]) -> StoreAction[I]:
        own_name = _checked("action", name or getattr(function, "__name__", ""))
        return StoreAction(own_name, title, summary, _input_type(function, ("input",)), function)

    return made


def trigger(name: str, *, title: str, summary: str, input: type[Input]) -> Trigger:
    """Declares a trigger. Raises DeclarationError for a name that is none."""
    return Trigger(name, title, summary, input)


def _input_type(function: Callable[..., object], parameters: tuple[str, ...]) -> type[I]:
    if tuple(inspect.signature(function).parameters) != parameters:
        raise DeclarationError(f"{function!r} must take exactly ({', '.join(parameters)}).")
    try:
        declared = get_type_hints(function).get("input")
    except NameError as error:
        raise DeclarationError(f"{function!r} declares a type that its module does not know: {error}.") from error
    if not (isinstance(declared, type) and issubclass(declared, Input)):
        raise DeclarationError(f"{function!r} must declare `input` as a subclass of Input, not {declared!r}.")
    return cast("type[I]", declared)  # the annotation that binds I


def _checked(what: str, name: str) -> str:
    _check_name(what, name)
    return name


def _check_name(what: str, name: str) -> None:
    if not _NAME.match(name):
        raise DeclarationError(
            f"{name!r} is no name for a {what}: small letters, digits and underscores, a letter first, 64 at most."
        )
