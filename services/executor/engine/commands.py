"""What the engine asks the driver to do.

Decides: the commands and what each must carry.
Leaves: carrying them out to the driver.
Invariant (I3, I4, I5): a command with `after` = n must not be carried out before the first n entries that this machine
made (all that `take_entries` ever gave, counted from 0 at start or recovery) are durable; 0 waits for nothing.
Every command with a `ref` is answered by exactly one event that carries the same `ref`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from flowlang.expressions import SecretSlot
from services.executor.engine.journal import Indices, RunError, RunStatus

EffectClass = Literal["pure", "read", "effect", "store"]
"""What an action does to the world. `store`: its operation commits together with the journal, exactly once."""


class Ref(msgspec.Struct, frozen=True, gc=False):
    """Which attempt of which step a command is for. An event whose ref is no longer awaited is ignored."""

    step_id: str
    indices: Indices
    attempt: int
    serial: int
    """Differs for every command of one machine."""


class Evaluate(msgspec.Struct, frozen=True):
    """Evaluate JavaScript expressions in one isolate call, answered by Evaluated or EvaluationFailed.

    `scope` holds the documents that they may refer to, as JSON bytes; a name that has no value yet is `null`.
    """

    ref: Ref
    expressions: tuple[str, ...]
    scope: dict[str, bytes]
    after: int = 0


class RunCode(msgspec.Struct, frozen=True):
    """Call a code step's function in the jail. Answered by CodeFinished, StepFailedEvent or TimedOut."""

    ref: Ref
    step_id: str
    input: bytes
    secrets: tuple[SecretSlot, ...]
    timeout_ms: int
    after: int = 0


class RunAction(msgspec.Struct, frozen=True):
    """Call an action of a piece. Answered by ActionFinished, StepFailedEvent or TimedOut.

    `input` shows masks where `secrets` belong. `key` is the idempotency key; empty for pure and read actions.
    """

    ref: Ref
    step_id: str
    piece: str
    action: str
    version: str
    input: bytes
    secrets: tuple[SecretSlot, ...]
    key: str
    attempt: int
    timeout_ms: int
    effect: EffectClass
    after: int = 0

    @property
    def transactional(self) -> bool:
        """The operation and its outcome commit in one transaction with the journal.

        Inside the flush: carry out, hand the machine ActionFinished, take its entries, write them, commit. If that
        transaction is lost, drop the machine and recover it: then neither happened.
        """
        return self.effect == "store"


class Sleep(msgspec.Struct, frozen=True):
    """Nothing to do for this step before `until_ms`. Answered by Woken; a time in the past is answered at once."""

    ref: Ref
    until_ms: int
    after: int = 0


class Answer(msgspec.Struct, frozen=True):
    """Answer a waiting synchronous request (I5). Ignored where nobody waits. `body` is a JSON document."""

    status: int
    headers: dict[str, str]
    body: bytes
    after: int = 0


class Finish(msgspec.Struct, frozen=True):
    """The run ended. Whatever of it is still in flight is to be stopped; its events will be ignored."""

    status: RunStatus
    error: RunError | None
    after: int = 0


Command = Evaluate | RunCode | RunAction | Sleep | Answer | Finish
