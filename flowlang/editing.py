"""Changes to the tree of steps: find, replace, insert, copy.

Decides: how a changed tree shares what did not change, how copies get ids of their own and refer to each other.
Leaves: which operations there are, and their messages, to operations.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from msgspec.structs import replace

from flowlang.ids import fresh_id
from flowlang.model import Flow, LoopStep, Step, Trigger
from flowlang.renaming import renamer
from flowlang.structure import bodies, map_step, map_texts, step_ids, walk, with_bodies


class Found(NamedTuple):
    """Where a step stands: in which step (empty: the flow), in which of its lists, at which position."""

    step: Step
    parent: str
    branch: int
    position: int


def find_step(flow: Flow, step_id: str) -> Found | None:
    """The first step of this id."""
    return next((found for found in _positions(flow.steps, "", 0) if found.step.id == step_id), None)


def _positions(steps: list[Step], parent: str, branch: int) -> Iterator[Found]:
    for index, step in enumerate(steps):
        yield Found(step, parent, branch, index)
        for number, body in enumerate(bodies(step)):
            yield from _positions(body, step.id, number)


def change_step(flow: Flow, step_id: str, change: Callable[[Step], list[Step]]) -> Flow:
    """The flow with a step replaced by others (none: it is gone). The step must exist."""
    steps = _changed(flow.steps, step_id, change)
    if steps is None:
        raise KeyError(step_id)
    return replace(flow, steps=steps)


def _changed(steps: list[Step], step_id: str, change: Callable[[Step], list[Step]]) -> list[Step] | None:
    for index, step in enumerate(steps):
        if step.id == step_id:
            return [*steps[:index], *change(step), *steps[index + 1 :]]
        held = bodies(step)
        for number, body in enumerate(held):
            new = _changed(body, step_id, change)
            if new is not None:
                inside = with_bodies(step, [*held[:number], new, *held[number + 1 :]])
                return [*steps[:index], inside, *steps[index + 1 :]]
    return None


def insert_steps(flow: Flow, parent: str, branch: int, index: int, new: list[Step]) -> Flow:
    """The flow with steps put into a list. The list must exist."""
    if not parent:
        return replace(flow, steps=[*flow.steps[:index], *new, *flow.steps[index:]])

    def put(step: Step) -> list[Step]:
        held = bodies(step)
        body = [*held[branch][:index], *new, *held[branch][index:]]
        return [with_bodies(step, [*held[:branch], body, *held[branch + 1 :]])]

    return change_step(flow, parent, put)


def copies(steps: list[Step], flow: Flow) -> list[Step]:
    """The steps with ids that are free in the flow; expressions among them refer to the copies."""
    taken = set(step_ids(flow))
    names: list[str] = []
    new_names: dict[str, str] = {}
    for visit in walk(steps):
        name = fresh_id(visit.step.id, taken)
        taken.add(name)
        names.append(name)
        if name != visit.step.id:
            new_names.setdefault(visit.step.id, name)
    rename = renamer(new_names, loops_around(steps))
    order = iter(names)
    return [_with_ids(map_step(step, rename), order) for step in steps]


def _with_ids(step: Step, names: Iterator[str]) -> Step:
    """The step, and all inside it, called by the next names in the order of `walk`."""
    named = replace(step, id=next(names))
    return with_bodies(named, [[_with_ids(inner, names) for inner in body] for body in bodies(named)])


def loops_around(steps: list[Step]) -> dict[str, list[str]]:
    """For each step the ids of the loops around it."""
    return {visit.step.id: [step.id for step in visit.around if isinstance(step, LoopStep)] for visit in walk(steps)}


def rename_references(flow: Flow, old: str, new: str) -> Flow:
    """The flow with every expression that refers to the step `old` referring to `new`. Ids stay."""
    rename = renamer({old: new}, loops_around(flow.steps))
    triggers = [_renamed_trigger(trigger, rename) for trigger in flow.triggers]
    return replace(flow, triggers=triggers, steps=[map_step(step, rename) for step in flow.steps])


def _renamed_trigger(trigger: Trigger, rename: Callable[[str], str]) -> Trigger:
    return replace(trigger, input={key: map_texts(value, rename) for key, value in trigger.input.items()})
