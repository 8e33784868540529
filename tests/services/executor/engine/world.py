"""A toy world and a toy driver: carries out what the engine asks for, one thing at a time, and can lose everything.

The outcome of an attempt follows from (seed, step, indices, attempt) alone, so the same flow in the same world comes to
the same end however it is cut off. The world keeps a ledger of effects by key, as the outside ledger of the chaos
tests does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from typing import Any

import msgspec

from flowlang.expressions import compile_template, resolve
from flowlang.model import ActionStep, Flow
from flowlang.values import as_text
from services.executor.engine.commands import Answer, Command, Evaluate, Finish, Ref, RunAction, RunCode, Sleep
from services.executor.engine.events import (
    ActionFinished,
    CodeFinished,
    Evaluated,
    EvaluationFailed,
    Event,
    StepFailedEvent,
    TimedOut,
    Woken,
)
from services.executor.engine.journal import (
    AnyEntry,
    Indices,
    StepFailed,
    StepFinished,
    StepStarted,
    decode_chunk,
    encode_chunk,
)
from services.executor.engine.limits import Limits
from services.executor.engine.machine import Machine
from services.executor.engine.plan import Effects, Plan, compile_plan

RUN_ID = bytes(range(16))
PAYLOAD = msgspec.json.encode({"n": 7, "list": [3, 1, 2], "body": {"owner": "ada", "ok": True}})
Work = Evaluate | RunCode | RunAction | Sleep
Outcome = Callable[[Ref], str]
"""`ok`, `retry` (a failure that may be tried again), `fatal` or `timeout`."""


def declared(step: ActionStep) -> tuple[str, str]:
    """The toy piece's actions are named after what they do: `effect`, `effect_once`, `read`, `pure`, `store`."""
    return step.action.removesuffix("_once"), "fail" if step.action.endswith("_once") else "retry"


def plan_of(steps: Sequence[object], limits: Limits | None = None) -> Plan:
    """The plan of a flow of these steps, as they stand in a document."""
    flow = msgspec.json.decode(msgspec.json.encode({"name": "toy", "steps": steps}), type=Flow)
    effects: Effects = declared  # type: ignore[assignment]  # the texts are right
    return compile_plan(flow, "version", effects, limits or Limits())


def number(*parts: object) -> int:
    """A number that follows from the parts."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=6).digest(), "big")


def tell(machine: Machine, event: Event) -> Any:
    """Hand over an event; a list of commands whose kinds the test knows."""
    return machine.handle(event)


@dataclass
class World:
    """What lies outside the engine."""

    seed: int = 0
    outcome: Outcome = lambda _ref: "ok"
    effects: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    """The inputs that arrived, by key."""
    calls: list[tuple[str, Indices, int]] = field(default_factory=list)

    def answer(self, work: Work, now_ms: int) -> Event:
        """Do it."""
        ref = work.ref
        if isinstance(work, Sleep):
            return Woken(ref, max(now_ms, work.until_ms))
        if isinstance(work, Evaluate):
            return self._evaluate(work, now_ms)
        self.calls.append((ref.step_id, ref.indices, ref.attempt))
        if isinstance(work, RunAction) and work.effect == "effect":
            assert work.key
            self.effects[work.key].append(work.input)
        outcome = self.outcome(ref)
        if outcome == "timeout":
            return TimedOut(ref, now_ms)
        if outcome != "ok":
            return StepFailedEvent(ref, "TOY", f"{outcome} failure", outcome == "retry", now_ms)
        value = number(self.seed, ref.step_id, ref.indices, work.input)
        output = msgspec.json.encode(
            {"v": value % 10, "list": list(range(value % 4)), "input": msgspec.Raw(work.input)}
        )
        return (
            CodeFinished(ref, output, b"", now_ms) if isinstance(work, RunCode) else ActionFinished(ref, output, now_ms)
        )

    def _evaluate(self, work: Evaluate, now_ms: int) -> Event:
        """Understands `path + ''` (the text of a path) and `boom()` alone."""
        scope = {name: msgspec.json.decode(document) for name, document in work.scope.items()}
        values = []
        for expression in work.expressions:
            if expression == "boom()":
                return EvaluationFailed(work.ref, "boom", now_ms)
            path = expression.removesuffix(" + ''")
            values.append(as_text(resolve(compile_template("{{" + path + "}}"), scope).value))
        return Evaluated(work.ref, msgspec.json.encode(values), now_ms)


class Driver:
    """Drives one run; `chunks` is what is durable."""

    def __init__(self, plan: Plan, world: World, seed: int = 0, limits: Limits | None = None) -> None:
        self.plan = plan
        self.world = world
        self.random = Random(seed)
        self.limits = limits or Limits()
        self.now_ms = 1_000
        self.chunks: list[bytes] = []
        self.durable = 0
        self.pending: list[Work] = []
        self.answers: list[Answer] = []
        self.finish: Finish | None = None
        self.machine, commands = Machine.start(plan, RUN_ID, "hook", PAYLOAD, self.now_ms, self.limits)
        self.take(commands)

    @classmethod
    def recovered(cls, before: Driver, chunks: Sequence[bytes], world: World, seed: int) -> Driver:
        """A driver that goes on from these chunks alone."""
        driver = cls.__new__(cls)
        driver.__dict__.update(plan=before.plan, world=world, random=Random(seed), limits=before.limits)
        driver.now_ms = before.now_ms
        driver.chunks = list(chunks)
        driver.crash()
        return driver

    def crash(self) -> None:
        """Lose all that is not durable, and go on."""
        self.now_ms += 5_000
        self.pending, self.answers, self.finish, self.durable = [], [], None, 0
        self.machine, commands = Machine.recover(
            self.plan, RUN_ID, self.entries(), self.now_ms, self.limits
        )  # fmt: skip
        self.take(commands)

    def entries(self) -> list[AnyEntry]:
        """What is durable."""
        return [entry for chunk in self.chunks for entry in decode_chunk(chunk)]

    def take(self, commands: Sequence[Command]) -> None:
        """Note what is asked for."""
        for command in commands:
            if isinstance(command, Answer):
                self.answers.append(command)
            elif isinstance(command, Finish):
                self.finish = command
                self.pending.clear()
            else:
                self.pending.append(command)

    def flush(self) -> None:
        """Make all entries durable."""
        entries = self.machine.take_entries()
        if entries:
            self.chunks.append(encode_chunk(entries))
            self.durable += len(entries)

    def step(self) -> None:
        """Carry out one of the things asked for, and maybe flush."""
        work = self.pending.pop(self.random.randrange(len(self.pending)))
        if work.after > self.durable:
            self.flush()
        assert work.after <= self.durable
        self._check(work)
        self.now_ms += self.random.randrange(5)
        event = self.world.answer(work, self.now_ms)
        self.now_ms = event.now_ms
        self.take(self.machine.handle(event))
        if self.random.random() < 0.3:
            self.flush()

    def _check(self, work: Work) -> None:
        """I3: a finished step never runs again. I4: the start of an effect is durable before the call."""
        if isinstance(work, RunAction) and work.effect == "effect":
            started = [e for e in self.entries() if isinstance(e, StepStarted) and e.key == work.key]
            assert started
            assert all(e.attempt <= work.attempt for e in started)
            assert work.key not in self._dead_keys(), "n grows after a known failure (I4)"
        if isinstance(work, RunCode | RunAction):
            place = (work.ref.step_id, work.ref.indices)
            finished = [e for e in self.entries() if isinstance(e, StepFinished) and (e.step_id, e.indices) == place]
            assert not finished

    def _dead_keys(self) -> set[str]:
        """Keys of attempts whose failure is known and durable."""
        keys = {(e.step_id, e.indices, e.attempt): e.key for e in self.entries() if isinstance(e, StepStarted)}
        failed = [e for e in self.entries() if isinstance(e, StepFailed) and not e.unknown]
        return {keys.get((e.step_id, e.indices, e.attempt), "") for e in failed}

    def run(self) -> Driver:
        """To the end."""
        for _ in range(5_000):
            if self.machine.status != "running":
                self.flush()
                return self
            self.step()
        raise AssertionError("the run does not end")

    def result(self) -> tuple[object, ...]:
        """All that must not depend on crashes: state, error, answer, outputs."""
        machine = self.machine
        assert machine.answer is not None
        outputs = {
            (entry.step_id, entry.indices): entry.output for entry in self.entries() if isinstance(entry, StepFinished)
        }
        answer = (machine.answer.status, machine.answer.headers, machine.answer.body)
        return machine.status, machine.error, answer, outputs

    def keys(self) -> set[str]:
        """The keys under which effects were begun."""
        return {entry.key for entry in self.entries() if isinstance(entry, StepStarted)}

    def kinds(self) -> set[str]:
        """Kinds of failures in the journal."""
        return {entry.kind for entry in self.entries() if isinstance(entry, StepFailed)}
