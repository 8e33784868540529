"""A published version made ready to run: steps with their place, templates compiled, durations in milliseconds.

Decides: what is worked out once a version instead of at every run; the effect class of a step (author over piece).
Leaves: what is valid to flowlang/validate.py (a version that got here passed it), running to machine.py.
A plan never changes once made, and is shared by all runs of its version.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from flowlang.durations import parse_duration_ms
from flowlang.expressions import Template, compile_template
from flowlang.model import ActionStep, CodeStep, Condition, Flow, Json, Language, LoopStep, RespondStep, Retry, Step
from flowlang.model import RouterStep as RouterNode
from services.executor.engine.commands import EffectClass
from services.executor.engine.limits import DEFAULT_LIMITS, Limits
from services.executor.engine.scope import encode

OnInterruption = Literal["retry", "fail"]
Effects = Callable[[ActionStep], tuple[EffectClass, OnInterruption]]
"""What the piece declares for a step: some actions look at constants of the input (an HTTP GET only reads)."""


class PlanError(ValueError):
    """The version cannot be run. The message says why."""


@dataclass(slots=True, eq=False)
class Input:
    """A compiled value. `names` are the documents that its isolate expressions may need."""

    template: Template
    constant: bytes | None
    names: tuple[str, ...]


@dataclass(slots=True, eq=False)
class RetryPlan:
    """When a failed attempt is tried again."""

    max_attempts: int
    initial_ms: int
    backoff: float
    max_ms: int
    jitter: float


@dataclass(slots=True, eq=False)
class Block:
    """A list of steps, and what it belongs to.

    `branch` is its position in a router; `depth` counts the loops around it.
    """

    owner: RouterPlan | LoopPlan | None
    branch: int
    depth: int
    path: tuple[Block, ...] = ()
    """The blocks around it from the outermost in, itself last."""
    steps: list[StepPlan] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class StepPlan:
    """What every step has."""

    id: str
    block: Block
    position: int
    skip: bool


@dataclass(slots=True, eq=False)
class WorkPlan(StepPlan):
    """A step that calls something: an action or code."""

    input: Input
    timeout_ms: int
    retry: RetryPlan
    continues: bool
    effect: EffectClass
    on_interruption: OnInterruption


@dataclass(slots=True, eq=False)
class ActionPlan(WorkPlan):
    """Calls an action of a piece."""

    piece: str
    action: str
    version: str


@dataclass(slots=True, eq=False)
class CodePlan(WorkPlan):
    """Calls the author's function."""

    source: str
    language: Language


@dataclass(slots=True, eq=False)
class BranchPlan:
    """One way out of a router; `when` is any of all of."""

    name: str
    fallback: bool
    when: list[list[Condition]]
    block: Block


@dataclass(slots=True, eq=False)
class RouterPlan(StepPlan):
    """`operands` gives for each branch a list of groups of [left, right], or [value] for a free expression."""

    first_match: bool
    branches: list[BranchPlan]
    operands: Input


@dataclass(slots=True, eq=False)
class LoopPlan(StepPlan):
    """Runs `body` once an item."""

    items: Input
    collect: Input | None
    concurrency: int
    continues: bool
    finishes: bool
    """After a failure the items under way are carried to their end."""
    body: Block
    shows_steps: bool = False
    """Some expression inside may use more of the loop's id than `item` and `index`."""


@dataclass(slots=True, eq=False)
class RespondPlan(StepPlan):
    """Answers the waiting request. `content` gives {status, headers, body}."""

    content: Input


@dataclass(slots=True, eq=False)
class Plan:
    """A version, compiled."""

    version_id: str
    root: Block
    steps: dict[str, StepPlan]

    def code(self, step_id: str) -> CodePlan:
        """The code step of this id. Raises KeyError."""
        step = self.steps[step_id]
        if not isinstance(step, CodePlan):
            raise KeyError(step_id)
        return step


def compile_plan(flow: Flow, version_id: str, effects: Effects, limits: Limits = DEFAULT_LIMITS) -> Plan:
    """Make the plan of a version. Raises PlanError, ExpressionError or ValueError for what no valid version holds."""
    return _Compiler(effects, limits).plan(flow, version_id)


class _Compiler:
    def __init__(self, effects: Effects, limits: Limits) -> None:
        self._effects = effects
        self._limits = limits
        self._steps: dict[str, StepPlan] = {}
        self._inputs: list[tuple[Input, list[str]]] = []
        self._texts: list[bytes] = []
        """Every compiled value as JSON, so that a loop can look how its body uses its id."""

    def plan(self, flow: Flow, version_id: str) -> Plan:
        root = self._block(flow.steps, None, 0, 0, ())
        known = {"trigger", "run", "variables", *self._steps}
        for made, used in self._inputs:
            made.names = tuple(name for name in used if name in known)
        return Plan(version_id, root, self._steps)

    def _block(
        self, steps: list[Step], owner: RouterPlan | LoopPlan | None, branch: int, depth: int, outer: tuple[Block, ...]
    ) -> Block:
        block = Block(owner, branch, depth)
        block.path = (*outer, block)
        if len(block.path) > self._limits.nesting:
            raise PlanError(f"The flow nests deeper than {self._limits.nesting} blocks.")
        for position, step in enumerate(steps):
            if step.id in self._steps:
                raise PlanError(f"Two steps have the id `{step.id}`.")
            made = self._step(step, block, position)
            self._steps[step.id] = made
            block.steps.append(made)
        return block

    def _step(self, step: Step, block: Block, position: int) -> StepPlan:
        match step:
            case ActionStep() | CodeStep():
                return self._work(step, block, position)
            case RouterNode():
                return self._router(step, block, position)
            case LoopStep():
                return self._loop(step, block, position)
            case RespondStep():
                content = self._input({"status": step.status, "headers": dict(step.headers), "body": step.body})
                return RespondPlan(step.id, block, position, step.skip, content)

    def _work(self, step: ActionStep | CodeStep, block: Block, position: int) -> WorkPlan:
        timeout_ms = parse_duration_ms(step.timeout) if step.timeout else self._limits.step_time_ms
        retry = _retry(step.retry or Retry())
        made = self._input(dict(step.input))
        continues = step.on_error == "continue"
        if isinstance(step, CodeStep):
            return CodePlan(
                step.id, block, position, step.skip, made, timeout_ms, retry, continues, "pure", "retry",
                step.source, step.language,
            )  # fmt: skip
        effect, on_interruption = self._effects(step)
        return ActionPlan(
            step.id, block, position, step.skip, made, timeout_ms, retry, continues,
            effect if effect == "store" else step.effect or effect, step.on_interruption or on_interruption,
            step.piece, step.action, step.version,
        )  # fmt: skip

    def _router(self, step: RouterNode, block: Block, position: int) -> RouterPlan:
        operands: Json = [
            [[_operands(condition) for condition in group] for group in branch.when] for branch in step.branches
        ]
        router = RouterPlan(step.id, block, position, step.skip, step.mode == "first_match", [], self._input(operands))
        for number, branch in enumerate(step.branches):
            inner = self._block(branch.steps, router, number, block.depth, block.path)
            router.branches.append(BranchPlan(branch.name, branch.fallback, branch.when, inner))
        return router

    def _loop(self, step: LoopStep, block: Block, position: int) -> LoopPlan:
        items = self._input(step.items)
        before = len(self._texts)
        loop = LoopPlan(
            step.id, block, position, step.skip, items, None if step.collect is None else self._input(step.collect),
            max(1, step.concurrency), step.on_error == "continue", step.on_failure == "finish", block,
        )  # fmt: skip
        loop.body = self._block(step.steps, loop, 0, block.depth + 1, block.path)
        beyond = re.compile(rb"(?<![\w$])%b(?![\w$])(?!\??\.(?:item|index)\b)" % re.escape(step.id.encode()))
        loop.shows_steps = any(beyond.search(text) for text in self._texts[before:])
        return loop

    def _input(self, value: Json) -> Input:
        template = compile_template(value)
        if template.constant:
            return Input(template, encode(value), ())
        self._texts.append(encode(value))
        made = Input(template, None, ())
        if not template.plain:
            used = [root for root in sorted(template.roots) if any(root in text for text in template.expressions)]
            self._inputs.append((made, used))
        return made


def _operands(condition: Condition) -> Json:
    if not condition.expression:
        return [condition.left, condition.right]
    text = condition.expression
    return [text if "{{" in text else "{{" + text + "}}"]


def _retry(retry: Retry) -> RetryPlan:
    return RetryPlan(
        max(1, retry.max_attempts),
        parse_duration_ms(retry.initial_interval),
        retry.backoff,
        parse_duration_ms(retry.max_interval),
        retry.jitter,
    )
