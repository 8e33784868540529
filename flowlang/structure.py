"""The tree of steps: which steps a step holds, walking over all of them, and which fields hold expressions.

Decides: what the bodies of a step are (a router's branches, a loop's steps) and which fields are templates.
Leaves: what may stand where to validate.py, changing the tree to operations.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from msgspec.structs import replace

from flowlang.expressions import Place
from flowlang.model import (
    ActionStep,
    Branch,
    CodeStep,
    Condition,
    Flow,
    Json,
    LoopStep,
    RespondStep,
    RouterStep,
    Step,
    Trigger,
)


class Visit(NamedTuple):
    """A step met on a walk, with the steps around it from the outside in."""

    step: Step
    around: tuple[Step, ...]


def bodies(step: Step) -> list[list[Step]]:
    """The lists of steps that a step holds; empty for a step that is no block."""
    if isinstance(step, RouterStep):
        return [branch.steps for branch in step.branches]
    return [step.steps] if isinstance(step, LoopStep) else []


def with_bodies(step: Step, new: list[list[Step]]) -> Step:
    """The step with other lists of steps, in the order of `bodies`."""
    if isinstance(step, RouterStep):
        branches = [
            replace(branch, steps=steps) if steps is not branch.steps else branch
            for branch, steps in zip(step.branches, new, strict=True)
        ]
        return replace(step, branches=branches)
    return replace(step, steps=new[0]) if isinstance(step, LoopStep) else step


def walk(steps: list[Step], around: tuple[Step, ...] = ()) -> Iterator[Visit]:
    """Every step, in the order of the document, a block before what it holds."""
    for step in steps:
        yield Visit(step, around)
        for body in bodies(step):
            yield from walk(body, (*around, step))


def map_steps(steps: list[Step], change: Callable[[Step], Step]) -> list[Step]:
    """The steps with every one of them, also inside blocks, changed; what a block holds before the block."""
    return [change(with_bodies(step, [map_steps(body, change) for body in bodies(step)])) for step in steps]


def step_ids(flow: Flow) -> list[str]:
    """Ids of all triggers and steps, in the order of the document."""
    return [trigger.id for trigger in flow.triggers] + [visit.step.id for visit in walk(flow.steps)]


def template_fields(node: Trigger | Step) -> Iterator[tuple[Place, Json]]:
    """The fields of a trigger or step that may hold expressions, without the steps inside it."""
    if isinstance(node, Trigger | ActionStep | CodeStep):
        yield ("input",), node.input
    elif isinstance(node, LoopStep):
        yield ("items",), node.items
        yield ("collect",), node.collect
    elif isinstance(node, RespondStep):
        yield ("status",), node.status
        yield ("headers",), node.headers
        yield ("body",), node.body
    else:
        for place, condition in conditions_of(node):
            yield (*place, "left"), condition.left
            yield (*place, "right"), condition.right
            yield (*place, "expression"), condition.expression


def conditions_of(router: RouterStep) -> Iterator[tuple[Place, Condition]]:
    """Every condition with its place: `branches[0].when[0][1]`."""
    for number, branch in enumerate(router.branches):
        for group_number, group in enumerate(branch.when):
            for index, condition in enumerate(group):
                yield ("branches", number, "when", group_number, index), condition


def texts_in(value: Json, place: Place) -> Iterator[tuple[Place, str]]:
    """Every text inside a JSON value that may hold expressions, with its place."""
    if isinstance(value, str):
        if "{{" in value:
            yield place, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from texts_in(part, (*place, key))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from texts_in(part, (*place, index))


def map_texts(value: Json, change: Callable[[str], str]) -> Json:
    """The value with every text that may hold expressions changed. Keys stay."""
    if isinstance(value, str):
        return change(value) if "{{" in value else value
    if isinstance(value, dict):
        return {key: map_texts(part, change) for key, part in value.items()}
    return [map_texts(part, change) for part in value] if isinstance(value, list) else value


def map_step(step: Step, change: Callable[[str], str]) -> Step:
    """The step, and all inside it, with every text that may hold expressions changed."""
    if isinstance(step, ActionStep | CodeStep):
        return replace(step, input=map_texts(step.input, change))
    if isinstance(step, LoopStep):
        steps = [map_step(inner, change) for inner in step.steps]
        items, collect = map_texts(step.items, change), map_texts(step.collect, change)
        return replace(step, items=items, collect=collect, steps=steps)
    if isinstance(step, RespondStep):
        changed = {name: map_texts(getattr(step, name), change) for name in ("status", "headers", "body")}
        return replace(step, **changed)
    return replace(step, branches=[map_branch(branch, change) for branch in step.branches])


def map_branch(branch: Branch, change: Callable[[str], str]) -> Branch:
    """The branch with every text that may hold expressions changed."""
    when = [
        [
            replace(
                condition,
                left=map_texts(condition.left, change),
                right=map_texts(condition.right, change),
                expression=map_texts(condition.expression, change),
            )
            for condition in group
        ]
        for group in branch.when
    ]
    return replace(branch, when=when, steps=[map_step(step, change) for step in branch.steps])
