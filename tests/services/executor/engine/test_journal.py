"""The journal's bytes, and how a run is told from it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlang.expressions import SecretRef, SecretSlot
from services.executor.engine.journal import (
    Noted,
    RunError,
    RunFinished,
    StepInterrupted,
    StepStarted,
    decode_chunk,
    encode_chunk,
)
from services.executor.engine.machine import Machine
from services.executor.engine.replay import JournalError
from services.executor.engine.view import StepView, describe, trigger_document
from tests.services.executor.engine.flow_strategies import Toy, flows, outcomes
from tests.services.executor.engine.world import PAYLOAD, RUN_ID, Driver, World, plan_of


def view_of(driver: Driver, upto: int | None = None) -> dict[tuple[str, tuple[int, ...]], StepView]:
    return {(view.step_id, view.indices): view for view in describe(driver.entries()[:upto])}


def test_secret_slots_survive_the_journal() -> None:
    slot = SecretSlot(("auth", 0), ("Bearer ", SecretRef("shop", ("token",))))
    entry = StepStarted("pay", (1, 2), 1, 1, "key", b"{}", (slot,), 5)
    assert decode_chunk(encode_chunk([entry])) == [entry]


def test_a_chunk_of_a_later_release_with_more_fields_is_read() -> None:
    raw = msgspec.msgpack.encode([[11, "succeeded", None, 9, 3, "a field of tomorrow"]])
    assert decode_chunk(raw) == [RunFinished("succeeded", None, 9, 3)]


def test_a_chunk_of_an_earlier_release_with_fewer_fields_is_read() -> None:
    raw = msgspec.msgpack.encode([[5, "pay", [0], 1, "key", 2, 9]])
    assert decode_chunk(raw) == [StepInterrupted("pay", (0,), 1, "key", 2, 9)]


def test_a_journal_of_another_version_is_refused() -> None:
    other = Driver(plan_of([{"id": "gone", "kind": "code", "source": "-"}]), World()).run()
    with pytest.raises(JournalError, match="gone"):
        Machine.recover(plan_of([]), RUN_ID, other.entries(), 2_000)


def test_a_finished_run_recovers_to_its_end_and_answer() -> None:
    driver = Driver(plan_of([{"id": "sum", "kind": "code", "source": "-"}]), World()).run()
    machine, commands = Machine.recover(driver.plan, RUN_ID, driver.entries(), 9_000)
    assert (machine.status, commands) == ("succeeded", [])
    assert machine.answer is not None
    assert driver.machine.answer is not None
    assert machine.answer.body == driver.machine.answer.body
    assert machine.steps_finished == 1


def step(step_id: str, action: str = "effect", **more: Any) -> dict[str, Any]:
    return {"id": step_id, "kind": "action", "piece": "toy", "action": action, "input": {"n": "{{trigger.n}}"}, **more}


def test_a_run_is_told_step_by_step() -> None:
    retry = {"max_attempts": 2, "initial_interval": "1s"}
    steps = [
        step("read", "read", retry=retry),
        {"id": "each", "kind": "loop", "items": [1, 2], "on_error": "continue", "steps": [step("ship")]},
        {"id": "tell", "kind": "respond", "body": 1},
        step("lax", "read", on_error="continue"),
    ]
    bad = {("read", ()): 1, ("ship", (1,)): 9, ("lax", ()): 9}

    def outcome(ref: Any) -> str:
        return "retry" if ref.attempt <= bad.get((ref.step_id, ref.indices), 0) else "ok"

    driver = Driver(plan_of(steps), World(outcome=outcome)).run()
    views = view_of(driver)
    assert {place: view.status for place, view in views.items()} == {
        ("read", ()): "succeeded",
        ("each", ()): "succeeded",
        ("ship", (0,)): "succeeded",
        ("ship", (1,)): "failed",
        ("tell", ()): "succeeded",
        ("lax", ()): "continued",
    }
    read, each, ship = views["read", ()], views["each", ()], views["ship", (0,)]
    assert (read.attempt, read.input, read.key) == (2, b'{"n":7}', "")
    assert read.error is not None
    assert (each.iterations_finished, each.iterations_failed, each.input) == (2, 1, b"[1,2]")
    assert ship.input == b'{"n":7}'
    assert ship.key
    assert msgspec.json.decode(views["tell", ()].output) == {"status": 200, "headers": {}, "body": 1}
    assert trigger_document(driver.entries()) == PAYLOAD


def test_open_steps_are_shown_as_running_waiting_interrupted() -> None:
    machine, _ = Machine.start(plan_of([step("pay")]), RUN_ID, "hook", PAYLOAD, 1_000)
    entries = machine.take_entries()
    assert [view.status for view in describe(entries)] == ["running"]
    machine, _ = Machine.recover(plan_of([step("pay")]), RUN_ID, entries, 2_000)
    entries += machine.take_entries()
    assert [view.interruptions for view in describe(entries)] == [1]
    entries.append(Noted("pay", (), "a remark", 2_001))
    assert describe(entries)[0].notes == ["a remark"]
    entries.append(RunFinished("canceled", None, 2_002))
    assert [view.status for view in describe(entries)] == ["stopped"]


@settings(max_examples=60, deadline=None)
@given(toy=flows(), seed=st.integers(0, 2**32))
def test_nothing_is_shown_as_open_in_a_run_that_has_ended(toy: Toy, seed: int) -> None:
    driver = Driver(plan_of(toy.steps), World(seed, outcomes(seed)), seed).run()
    entries = driver.entries()
    for upto in range(len(entries)):
        describe(entries[:upto])
    views = describe(entries)
    assert all(view.finished_ms and view.status not in ("running", "waiting") for view in views)
    error = driver.machine.error
    if isinstance(error, RunError):
        assert any(view.step_id == error.step_id and view.error is not None for view in views)
