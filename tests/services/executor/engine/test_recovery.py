"""A run that is cut off anywhere comes to the same end (I3, I4)."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.executor.engine.journal import StepFinished, StepStarted, encode_chunk
from services.executor.engine.limits import Limits
from tests.services.executor.engine.flow_strategies import Toy, flows, outcomes
from tests.services.executor.engine.world import Driver, World, plan_of

MANY = Limits(takeovers=1_000)
SEEDS = st.integers(0, 2**32)
RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def world(seed: int) -> World:
    return World(seed, outcomes(seed))


def same(toy: Toy, expected: Driver, actual: Driver) -> None:
    """Equal where the order of things side by side cannot matter; else at least the same kind of end."""
    if "INTERRUPTED" in expected.kinds() | actual.kinds():
        return  # an effect that must not be repeated was cut off, or timed out: it failed, as it had to
    assert actual.machine.status == expected.machine.status
    if toy.ordered:
        assert actual.result() == expected.result()
        assert actual.keys() <= expected.keys(), "a cut may keep a key that a known failure would have changed"


@settings(RELAXED, max_examples=150)
@given(toy=flows(), seed=SEEDS, order=SEEDS, other=SEEDS)
def test_the_order_of_events_does_not_change_the_end(toy: Toy, seed: int, order: int, other: int) -> None:
    plan = plan_of(toy.steps)
    one = Driver(plan, world(seed), order).run()
    two = Driver(plan, world(seed), other).run()
    same(toy, one, two)


@settings(RELAXED, max_examples=120)
@given(toy=flows(), seed=SEEDS, order=SEEDS)
def test_a_run_recovered_from_any_prefix_of_its_journal_ends_as_if_it_was_never_cut_off(
    toy: Toy, seed: int, order: int
) -> None:
    whole = Driver(plan_of(toy.steps), world(seed), order, MANY).run()
    entries = whole.entries()
    for cut in range(1, len(entries) + 1):
        outside = world(seed)
        again = Driver.recovered(whole, [encode_chunk(entries[:cut])], outside, order + cut).run()
        same(toy, whole, again)
        finished = {(e.step_id, e.indices) for e in entries[:cut] if isinstance(e, StepFinished)}
        assert not finished & {(step_id, indices) for step_id, indices, _ in outside.calls}


@settings(RELAXED, max_examples=200)
@given(toy=flows(), seed=SEEDS, order=SEEDS, crashes=st.lists(st.integers(1, 12), max_size=6))
def test_a_run_that_is_cut_off_again_and_again_repeats_an_effect_only_with_the_same_key_and_input(
    toy: Toy, seed: int, order: int, crashes: list[int]
) -> None:
    plan = plan_of(toy.steps)
    whole = Driver(plan, world(seed), order).run()
    outside = world(seed)
    driver = Driver(plan, outside, order, MANY)
    for steps in crashes:
        driver.flush()
        for _ in range(steps):
            if driver.machine.status == "running":
                driver.step()
        driver.crash()
    driver.run()
    same(toy, whole, driver)
    for arrived in outside.effects.values():
        assert len(set(arrived)) == 1
    allowed = 1 + len(crashes)
    for key, arrived in outside.effects.items():
        # A time-out tries again under the same key, so each attempt counts for itself.
        attempts = {e.attempt for e in driver.entries() if isinstance(e, StepStarted) and e.key == key}
        assert len(arrived) <= allowed * max(1, len(attempts))


@settings(RELAXED, max_examples=80)
@given(toy=flows(), seed=SEEDS, order=SEEDS, at=st.integers(0, 20))
def test_an_effect_that_must_not_be_repeated_arrives_once(toy: Toy, seed: int, order: int, at: int) -> None:
    once = [_once(step) for step in toy.steps]
    outside = World(seed, lambda _ref: "ok")
    driver = Driver(plan_of(once), outside, order, MANY)
    driver.flush()
    for _ in range(at):
        if driver.machine.status == "running":
            driver.step()
    driver.crash()
    driver.run()
    assert all(len(arrived) == 1 for arrived in outside.effects.values())


def _once(step: dict[str, object]) -> dict[str, object]:
    """The step, and those inside, with effects that must not be repeated."""
    copy = dict(step)
    if copy["kind"] == "action":
        copy["action"] = "effect_once"
    for field in ("steps", "branches"):
        if field in copy:
            inside = copy[field]
            assert isinstance(inside, list)
            copy[field] = [
                {**part, "steps": [_once(inner) for inner in part["steps"]]} if field == "branches" else _once(part)
                for part in inside
            ]
    return copy
