"""Carries out one action of a piece.

Decides: that an input is read strictly before anything happens, that a call ends in time, that nothing leaves it with a
known secret in it, and that whatever goes wrong becomes one `ActionFailed`.
Leaves: when a call may begin (I4) and what its end means to the driver and the engine; going out to egress.py;
performing store operations to the flush.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import msgspec
import structlog
from millrace_sdk import (
    ActionFailed,
    AnyAction,
    Context,
    Effect,
    Http,
    Json,
    OnInterruption,
    Piece,
    StoreAction,
    StoreOperation,
    TimedOut,
    describe,
)

from chassis.documents import MAX_DEPTH, deeper_than
from services.executor.driver.masking import Masker

MAX_OUTPUT_BYTES = 8 * 1024 * 1024
"""Room for an HTTP answer of 5 MiB that grows as it is written as JSON."""
MAX_LOG_LINES = 1_000
MAX_LOG_CHARACTERS = 64 * 1024

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ActionCall:
    """One call: which action, with what, on behalf of which step."""

    piece: str
    action: str
    input: bytes = field(repr=False)
    """JSON with secrets filled in."""
    key: str
    """The idempotency key; empty for steps without an effect."""
    run_id: bytes
    """16 bytes."""
    project_id: str
    step_id: str
    attempt: int
    timeout_ms: int
    secrets: Sequence[str] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class ActionOutcome:
    """What came of a call: its output as JSON and its log, both without secrets."""

    output: bytes
    log: tuple[str, ...] = ()


class Actions:
    """The installed pieces, ready to be called. `http` is the guarded way out."""

    def __init__(self, pieces: Sequence[Piece], http: Http) -> None:
        self._pieces = {piece.name: piece for piece in pieces}
        self._http = http
        self._catalogue: list[bytes] = []

    def catalogue(self) -> list[bytes]:
        """One JSON object a piece, by name, as `millrace_sdk.describe` writes it."""
        if not self._catalogue:
            self._catalogue = [msgspec.json.encode(describe(piece)) for _, piece in sorted(self._pieces.items())]
        return self._catalogue

    def effect(self, piece: str, action: str, constant_input: Mapping[str, Json]) -> tuple[Effect, OnInterruption]:
        """How a step that calls this action stands to barriers and interruptions, known before it runs.

        `constant_input`: the input as it stands in the flow, or without what is not constant in it. Raises ActionFailed
        UNKNOWN_ACTION.
        """
        found = self._find(piece, action)
        return found.effect_for(constant_input), found.on_interruption

    async def run(self, call: ActionCall) -> ActionOutcome:
        """Carry out a call. Raises ActionFailed, without secrets; never anything else but cancellation."""
        masker = Masker(call.secrets)
        lines = _LogLines()
        try:
            output = _encoded(await self._called(call, lines))
        except ActionFailed as failure:
            raise _masked(failure, masker) from None
        except Exception as error:  # noqa: BLE001 - a piece is not ours: whatever it raises fails its step, not the executor
            raise _broken(error, call, masker) from None
        return ActionOutcome(masker.document(output), tuple(masker.text(line) for line in lines.kept))

    def operation(self, call: ActionCall) -> StoreOperation:
        """The store operation a call of a store action asks for; a known secret is not stored. Raises ActionFailed."""
        masker = Masker(call.secrets)
        try:
            operation = self._planned(call)
        except ActionFailed as failure:
            raise _masked(failure, masker) from None
        return msgspec.structs.replace(operation, key=masker.text(operation.key), value=masker.value(operation.value))

    def _planned(self, call: ActionCall) -> StoreOperation:
        action = self._find(call.piece, call.action)
        if not isinstance(action, StoreAction):
            raise ActionFailed("UNKNOWN_ACTION", f"{call.piece}.{call.action} is no store operation.")
        return action.plan(action.decode(call.input))

    async def _called(self, call: ActionCall, lines: _LogLines) -> Json:
        action = self._find(call.piece, call.action)
        if isinstance(action, StoreAction):
            raise ActionFailed("UNKNOWN_ACTION", f"{call.piece}.{call.action} is a store operation, not a call.")
        context = Context(
            http=self._http,
            idempotency_key=call.key,
            run_id=str(UUID(bytes=call.run_id)),
            step_id=call.step_id,
            attempt=call.attempt,
            on_log=lines.add,
        )
        decoded = action.decode(call.input)
        limit = asyncio.timeout(call.timeout_ms / 1000)
        try:
            async with limit:
                return await action.run(context, decoded)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TimedOut(f"The step took longer than {call.timeout_ms / 1000:g} s, which is its limit.") from error

    def _find(self, piece: str, action: str) -> AnyAction:
        found = self._pieces.get(piece)
        if found is None:
            installed = ", ".join(sorted(self._pieces)) or "none"
            raise ActionFailed("UNKNOWN_ACTION", f"No piece {piece!r} is installed. There are: {installed}.")
        return found.action(action)


class _LogLines:
    """The log of one call, bounded."""

    def __init__(self) -> None:
        self.kept: list[str] = []
        self._characters = 0
        self._full = False

    def add(self, text: str) -> None:
        if self._full:
            return
        room = MAX_LOG_CHARACTERS - self._characters
        if len(text) > room or len(self.kept) >= MAX_LOG_LINES:
            self._full = True
            self.kept.append(
                f"[the log is cut off here: {MAX_LOG_LINES} lines and {MAX_LOG_CHARACTERS} characters are kept]"
            )
            return
        self.kept.append(text)
        self._characters += len(text)


def _encoded(output: Json) -> bytes:
    try:
        encoded = msgspec.json.encode(output)
    except (TypeError, ValueError, OverflowError, RecursionError, NotImplementedError) as error:
        raise ActionFailed("OUTPUT_INVALID", f"The action gave something that is no JSON value: {error}.") from error
    if deeper_than(encoded):
        raise ActionFailed("OUTPUT_INVALID", f"The output nests deeper than the {MAX_DEPTH} levels allowed.")
    if len(encoded) > MAX_OUTPUT_BYTES:
        message = f"The output is {len(encoded)} bytes of at most {MAX_OUTPUT_BYTES}. Ask the other side for less."
        raise ActionFailed("OUTPUT_INVALID", message)
    return encoded


def _masked(failure: ActionFailed, masker: Masker) -> ActionFailed:
    """The same failure, of the same class, without secrets."""
    details = masker.value(failure.details)
    failure.details = details if isinstance(details, dict) else {}
    failure.message = masker.text(failure.message)
    failure.args = (failure.kind, failure.message)
    return failure


def _broken(error: Exception, call: ActionCall, masker: Masker) -> ActionFailed:
    """A failure its author did not foresee: the step fails, the stack goes to our log."""
    stack = masker.text("".join(traceback.format_exception(error)))
    _log.error("piece_broke", piece=call.piece, action=call.action, step_id=call.step_id, stack=stack)
    message = masker.text(f"{call.piece}.{call.action} failed unexpectedly: {type(error).__name__}: {error}")
    return ActionFailed("PIECE_BROKEN", message, outcome_unknown=True)
