"""Where a run stands: one frame a list of steps under way, and what is open in it.

Decides: what is remembered of a run between two events; all of it can be rebuilt from the journal (replay.py).
Leaves: what happens to it to the modules of the step kinds.
A frame works on one step at a time. A router has one frame below it, a loop one an open iteration.
"""

from __future__ import annotations

import msgspec

from flowlang.expressions import SecretSlot
from services.executor.engine.journal import Indices, RunError
from services.executor.engine.plan import Block, LoopPlan, RouterPlan, StepPlan, WorkPlan
from services.executor.engine.scope import Scope


class Frame:
    """A list of steps under way. `loop` is the nearest loop around it, `parent` the frame that its owner stands in."""

    __slots__ = ("activity", "block", "cut", "error", "indices", "loop", "parent", "position", "scope", "takeovers")

    def __init__(
        self, block: Block, indices: Indices, scope: Scope, parent: Frame | None, loop: LoopRun | None
    ) -> None:
        self.block = block
        self.indices = indices
        self.scope = scope
        self.parent = parent
        self.loop = loop
        self.position = 0
        """Of the step that it works on, or will next."""
        self.activity: Work | RouterRun | LoopRun | None = None
        """What is open at that step."""
        self.error: RunError | None = None
        """Set when it failed; it then only has to be left."""
        self.takeovers = 0
        """How often the run was cut off at this position."""
        self.cut = False
        """Just recovered here: the next command is for what may have been in flight, and counts as a take-over."""

    def step(self) -> StepPlan:
        """The step that it works on."""
        return self.block.steps[self.position]

    def settle(self, step: StepPlan, output: bytes | None) -> None:
        """The step is done; its output, if it has one, is in scope from now on."""
        if output is not None:
            self.scope.put(step.id, output)
        self.position = step.position + 1
        self.activity = None
        self.takeovers = 0
        self.cut = False


class Work:
    """An action or code step under way, over all its attempts."""

    __slots__ = (
        "attempt",
        "begun",
        "doubtful",
        "input",
        "key",
        "n",
        "plan",
        "retry_at_ms",
        "secrets",
        "started_ms",
        "written",
    )

    def __init__(self, plan: WorkPlan) -> None:
        self.plan = plan
        self.attempt = 1
        self.n = 1
        """Number in the idempotency key (I4)."""
        self.key = ""
        self.input = b""
        self.secrets: tuple[SecretSlot, ...] = ()
        self.written = False
        """The journal holds the input."""
        self.begun = False
        """The journal holds the start of an effect, and no end of it."""
        self.doubtful = False
        """A call under this key was cut off: the effect may have happened, whatever later calls under it are told."""
        self.started_ms = 0
        self.retry_at_ms = 0

    def next_attempt(self, retry_at_ms: int, *, unknown: bool) -> None:
        """The attempt failed and is journaled. `unknown`: the effect may have happened, so the key stays (I4)."""
        self.attempt += 1
        self.doubtful = unknown
        if not unknown:
            self.n += 1
        self.begun = False
        self.retry_at_ms = retry_at_ms


class RouterRun:
    """A router that has decided. `at` is the position in `chosen` of the branch under way, `child` its frame."""

    __slots__ = ("at", "child", "chosen", "plan")

    def __init__(self, plan: RouterPlan, chosen: tuple[int, ...]) -> None:
        self.plan = plan
        self.chosen = chosen
        self.at = 0
        self.child: Frame | None = None


class LoopRun:
    """A loop under way."""

    __slots__ = (
        "active",
        "collected",
        "done",
        "errors",
        "failed",
        "failure",
        "frame",
        "gaps",
        "items",
        "next",
        "plan",
    )

    def __init__(self, plan: LoopPlan, frame: Frame, items: list[msgspec.Raw]) -> None:
        self.plan = plan
        self.frame = frame
        self.items = items
        self.next = 0
        """First item that was never begun."""
        self.gaps: list[int] = []
        """Items that were begun before a recovery, without a trace in the journal; begun again first."""
        self.active: dict[int, Frame] = {}
        self.done: set[int] = set()
        self.collected: dict[int, bytes] = {}
        self.failed = 0
        self.errors: dict[int, RunError] = {}
        self.failure: RunError | None = None
        """The first error of a loop that does not go on after errors."""

    def close(self, index: int, collected: bytes, error: RunError | None) -> None:
        """Item `index` is done."""
        self.active.pop(index, None)
        self.done.add(index)
        if collected:
            self.collected[index] = collected
        if error is not None:
            self.failed += 1
            self.errors[index] = error
            if not self.plan.continues and self.failure is None:
                self.failure = error

    def halted(self) -> bool:
        """Its iterations have to stop at their next step boundary: it, or a loop around it, has failed so."""
        loop: LoopRun | None = self
        while loop is not None:
            if loop.failure is not None and not loop.plan.finishes:
                return True
            loop = loop.frame.loop
        return False
