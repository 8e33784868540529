"""Random flow documents and random worlds for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from services.executor.engine.commands import Ref
from tests.services.executor.engine.world import Outcome, number


@dataclass(frozen=True)
class Toy:
    """A flow's steps. `ordered`: the course does not depend on the order in which things side by side end."""

    steps: list[dict[str, Any]]
    ordered: bool


class _Maker:
    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.ids: list[str] = []
        self.loops: list[str] = []
        self.ordered = True
        self.left = 9

    def pick(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def path(self) -> str:
        paths = [
            "trigger.n",
            "trigger.body.owner",
            "trigger.missing.x",
            "run.trigger",
            *(f"{i}.v" for i in self.ids[-3:]),
        ]
        paths += [p for i in self.loops for p in (f"{i}.item", f"{i}.index")]
        return str(self.draw(st.sampled_from(paths)))

    def value(self) -> Any:
        path = self.path()
        return self.pick("fixed", "{{" + path + "}}", "a {{" + path + "}} b", "{{" + path + " + ''}}")

    def block(self, depth: int) -> list[dict[str, Any]]:
        return [self.step(depth) for _ in range(self.draw(st.integers(0, 3))) if self.left > 0]

    def step(self, depth: int) -> dict[str, Any]:
        self.left -= 1
        kinds = ["action", "action", "code", "respond"] + (["router", "loop", "loop"] if depth < 3 else [])
        kind = self.pick(*kinds)
        step: dict[str, Any] = {"id": f"s{self.left}", "kind": kind}
        if self.draw(st.integers(0, 9)) == 0:
            step["skip"] = True
        getattr(self, kind)(step, depth)
        self.ids.append(step["id"])
        return step

    def work(self, step: dict[str, Any]) -> None:
        step["input"] = {"x": self.value()}
        step["on_error"] = self.pick("fail", "continue", "continue")
        step["retry"] = {"max_attempts": self.pick(1, 2, 3), "initial_interval": "1s"}

    def action(self, step: dict[str, Any], _depth: int) -> None:
        self.work(step)
        step |= {"piece": "toy", "action": self.pick("effect", "effect", "effect_once", "read", "pure", "store")}

    def code(self, step: dict[str, Any], _depth: int) -> None:
        self.work(step)
        step["source"] = "-"

    def respond(self, step: dict[str, Any], _depth: int) -> None:
        step |= {"status": self.pick(200, 404, "{{trigger.n}}"), "body": self.value()}
        self.ordered = self.ordered and not self.loops

    def router(self, step: dict[str, Any], depth: int) -> None:
        step["mode"] = self.pick("first_match", "all_matches")
        step["branches"] = [
            {
                "name": f"b{number}",
                "when": [[{"left": self.value(), "op": self.pick("exists", "exists", "equals"), "right": "fixed"}]],
                "steps": self.block(depth + 1),
            }
            for number in range(self.draw(st.integers(0, 3)))
        ] + [{"name": "else", "fallback": True, "steps": self.block(depth + 1)}]

    def loop(self, step: dict[str, Any], depth: int) -> None:
        step["items"] = self.pick([1, 2], ["a", "b", "c", "d"], [], "{{trigger.list}}", "{{trigger.list}}")
        step["concurrency"] = self.pick(1, 1, 2, 3)
        step["on_error"] = self.pick("continue", "fail")
        step["on_failure"] = self.pick("stop", "finish")
        if step["concurrency"] > 1 and step["on_error"] == "fail":
            self.ordered = False
        self.loops.append(step["id"])
        seen = len(self.ids)
        step["steps"] = self.block(depth + 1)
        if self.draw(st.booleans()):
            step["collect"] = {"got": self.value()}
        self.loops.pop()
        del self.ids[seen:]


@st.composite
def flows(draw: st.DrawFn) -> Toy:
    """Flows of all step kinds, nested up to three deep."""
    maker = _Maker(draw)
    steps = [maker.step(0) for _ in range(draw(st.integers(1, 4)))]
    return Toy(steps, maker.ordered)


def outcomes(seed: int) -> Outcome:
    """Most attempts succeed; the others fail in every way."""
    kinds = [12, 12, 4, 1_000][seed % 4]

    def outcome(ref: Ref) -> str:
        roll = number(seed, ref.step_id, ref.indices, ref.attempt) % kinds
        return {0: "retry", 1: "timeout", 2: "fatal"}.get(roll, "ok")

    return outcome
