"""Walking over the tree of steps and mapping it."""

from __future__ import annotations

from hypothesis import given, settings
from msgspec.structs import replace

from flowlang.model import Flow
from flowlang.structure import map_steps, step_ids, walk
from tests.flowlang.strategies import flows


@settings(max_examples=40)
@given(flow=flows)
def test_every_step_is_mapped_and_stays_in_its_place(flow: Flow) -> None:
    mapped = replace(flow, steps=map_steps(flow.steps, lambda step: replace(step, note="seen", skip=True)))
    assert step_ids(mapped) == step_ids(flow)
    assert all(visit.step.note == "seen" and visit.step.skip for visit in walk(mapped.steps))


@settings(max_examples=40)
@given(flow=flows)
def test_mapping_to_the_same_gives_the_same(flow: Flow) -> None:
    assert map_steps(flow.steps, lambda step: step) == flow.steps
