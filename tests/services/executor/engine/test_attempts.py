"""Retries, time-outs, interruptions: which attempt has which key, and when there is none (I4)."""

from __future__ import annotations

from typing import Any

import pytest

from services.executor.engine.commands import Evaluate, RunAction, RunCode, Sleep
from services.executor.engine.events import (
    ActionFinished,
    CodeFinished,
    Evaluated,
    Event,
    StepFailedEvent,
    TimedOut,
    Woken,
)
from services.executor.engine.journal import AnyEntry, StepInterrupted
from services.executor.engine.machine import Machine
from services.executor.engine.plan import Plan
from tests.services.executor.engine.world import PAYLOAD, RUN_ID, plan_of

RETRY = {"max_attempts": 4, "initial_interval": "1s", "backoff": 2, "max_interval": "3s", "jitter": 0}
PAY: dict[str, Any] = {"id": "pay", "kind": "action", "piece": "toy", "action": "effect", "input": {}, "retry": RETRY}
CODE: dict[str, Any] = {"id": "sum", "kind": "code", "source": "-", "retry": RETRY}


class Case:
    """A machine with all entries it ever made."""

    def __init__(self, *steps: dict[str, Any]) -> None:
        self.plan: Plan = plan_of(steps)
        self.machine, commands = Machine.start(self.plan, RUN_ID, "hook", PAYLOAD, 1_000)
        self.commands: list[Any] = list(commands)
        self.entries: list[AnyEntry] = self.machine.take_entries()

    def tell(self, event: Event) -> Any:
        self.commands = list(self.machine.handle(event))
        self.entries += self.machine.take_entries()
        return self.commands[0]

    def crash(self, now_ms: int, *, taken_over: bool = True) -> Any:
        self.machine, commands = Machine.recover(self.plan, RUN_ID, self.entries, now_ms, taken_over=taken_over)
        self.commands = list(commands)
        self.entries += self.machine.take_entries()
        return self.commands[0]


def test_waits_grow_up_to_the_longest_and_honour_retry_after() -> None:
    case = Case(PAY)
    call, now, waits = case.commands[0], 1_000, []
    for _ in range(3):
        sleep = case.tell(StepFailedEvent(call.ref, "X", "x", True, now))
        waits.append(sleep.until_ms - now)
        now = sleep.until_ms
        call = case.tell(Woken(sleep.ref, now))
    assert waits == [1_000, 2_000, 3_000]
    case.tell(StepFailedEvent(call.ref, "X", "x", True, now))
    assert case.machine.status == "failed"
    case = Case(PAY)
    sleep = case.tell(StepFailedEvent(case.commands[0].ref, "X", "x", True, 1_000, retry_after_ms=9_000))
    assert sleep.until_ms == 10_000


def test_jitter_spreads_waits_and_is_the_same_at_every_replay() -> None:
    waits = set()
    for run in range(20):
        plan = plan_of([{**CODE, "retry": {**RETRY, "jitter": 0.5}}])
        twice = set()
        for _ in range(2):
            machine, [call] = Machine.start(plan, bytes([run] * 16), "hook", PAYLOAD, 0)
            assert isinstance(call, RunCode)
            [sleep] = machine.handle(StepFailedEvent(call.ref, "X", "x", True, 0))
            assert isinstance(sleep, Sleep)
            twice.add(sleep.until_ms)
        assert len(twice) == 1
        waits |= twice
    assert len(waits) > 15
    assert all(500 <= wait <= 1_500 for wait in waits)


def test_an_error_that_is_not_retryable_ends_the_step_at_once() -> None:
    case = Case(PAY)
    case.tell(StepFailedEvent(case.commands[0].ref, "DENIED", "no", False, 1_010))
    assert case.machine.status == "failed"


def test_the_key_changes_after_a_known_failure_and_stays_after_a_time_out() -> None:
    case = Case(PAY)
    keys = []
    call = case.commands[0]
    for event in (
        lambda ref: StepFailedEvent(ref, "X", "x", True, 2_000),
        lambda ref: TimedOut(ref, 3_000),
        lambda ref: StepFailedEvent(ref, "X", "x", True, 4_000, unknown=True),
    ):
        keys.append(call.key)
        sleep = case.tell(event(call.ref))
        call = case.tell(Woken(sleep.ref, sleep.until_ms))
    keys.append(call.key)
    first, second, third, fourth = keys
    assert first != second
    assert second == third == fourth
    assert call.attempt == 4


def test_a_time_out_of_an_effect_that_must_not_be_repeated_fails_it() -> None:
    case = Case({**PAY, "action": "effect_once"})
    case.tell(TimedOut(case.commands[0].ref, 2_000))
    assert case.machine.error is not None
    assert case.machine.error.kind == "INTERRUPTED"
    case = Case({**PAY, "action": "effect_once", "retry": None})
    case.tell(TimedOut(case.commands[0].ref, 2_000))
    assert case.machine.error is not None
    assert case.machine.error.kind == "STEP_TIMED_OUT"


def test_an_effect_cut_off_in_flight_goes_on_with_the_same_key_and_input_after_a_durable_take_over() -> None:
    case = Case({**PAY, "input": {"sum": "{{trigger.n}}", "auth": "{{connections.shop.token}}"}})
    before = case.commands[0]
    after = case.crash(9_000)
    assert isinstance(after, RunAction)
    assert (after.key, after.input, after.secrets, after.attempt) == (
        before.key, before.input, before.secrets, before.attempt,
    )  # fmt: skip
    assert isinstance(case.entries[-1], StepInterrupted)
    assert after.after == 1


def test_an_effect_cut_off_in_flight_that_must_not_be_repeated_fails_or_lets_the_flow_go_on() -> None:
    case = Case({**PAY, "action": "effect_once"})
    case.crash(9_000)
    assert case.machine.error is not None
    assert case.machine.error.kind == "INTERRUPTED"
    case = Case({**PAY, "action": "effect_once", "on_error": "continue"})
    case.crash(9_000)
    assert case.machine.status == "succeeded"


def test_the_key_stays_after_an_interruption_though_its_repetition_is_refused() -> None:
    """The call that was cut off may have taken effect; that its repetition is refused (overload) proves nothing."""
    case = Case(PAY)
    first = case.commands[0].key
    again = case.crash(9_000)
    sleep = case.tell(StepFailedEvent(again.ref, "X", "x", True, 9_100))
    second = case.tell(Woken(sleep.ref, sleep.until_ms))
    assert (again.key, second.key, second.attempt) == (first, first, 2)
    third = case.crash(20_000)
    assert (third.key, third.attempt) == (first, 2)
    sleep = case.tell(StepFailedEvent(third.ref, "X", "x", True, 20_100))
    assert case.tell(Woken(sleep.ref, sleep.until_ms)).key == first


def test_the_key_stays_after_a_time_out_though_its_repetition_is_refused() -> None:
    case = Case(PAY)
    first = case.commands[0].key
    sleep = case.tell(TimedOut(case.commands[0].ref, 2_000))
    second = case.tell(Woken(sleep.ref, sleep.until_ms))
    sleep = case.tell(StepFailedEvent(second.ref, "X", "x", True, 3_000))
    assert case.tell(Woken(sleep.ref, sleep.until_ms)).key == first


@pytest.mark.parametrize("step", [PAY, CODE, {**PAY, "action": "read"}, {**CODE, "input": {"x": "{{trigger.n + ''}}"}}])
def test_three_take_overs_at_one_position_end_the_run_naming_the_step(step: dict[str, Any]) -> None:
    case = Case(step)
    for now_ms in (9_000, 18_000):
        command = case.crash(now_ms)
        assert command.after > 0, "the take-over must be durable before the step may take its executor with it again"
        assert case.machine.status == "running"
    case.crash(27_000)
    assert case.machine.status == "internal_error"
    assert case.machine.error is not None
    assert (case.machine.error.step_id, case.machine.error.kind) == (step["id"], "EXECUTOR_LOST")


def test_take_overs_are_counted_by_position() -> None:
    case = Case(PAY)
    case.crash(9_000)
    call = case.crash(18_000)
    case.tell(ActionFinished(call.ref, b"1", 18_001))
    assert case.machine.status == "succeeded"


def test_take_overs_at_a_router_do_not_count_for_the_step_after_it() -> None:
    way = {"id": "way", "kind": "router", "branches": [{"name": "a", "when": [[{"expression": "trigger.n + ''"}]]}]}
    case = Case(way, CODE)
    case.crash(9_000)
    evaluate = case.crash(18_000)
    case.tell(Evaluated(evaluate.ref, b'["7"]', 18_001))
    call = case.crash(27_000)
    assert (call.step_id, case.machine.status) == ("sum", "running")


def test_take_overs_while_a_value_is_collected_do_not_run_the_iteration_again() -> None:
    case = Case({"id": "each", "kind": "loop", "items": [1], "steps": [CODE], "collect": "{{each.index + ''}}"})
    evaluate = case.tell(CodeFinished(case.commands[0].ref, b"1", b"", 1_010))
    for now_ms in (9_000, 18_000):
        evaluate = case.crash(now_ms)
        assert isinstance(evaluate, Evaluate)
        assert (evaluate.ref.step_id, evaluate.ref.indices) == ("each", (0,))
    case.tell(Evaluated(evaluate.ref, b'["0"]', 18_001))
    assert case.machine.answer is not None
    assert case.machine.answer.body == b'{"count":1,"failed":0,"items":["0"]}'


def test_a_pending_retry_is_restored_and_counts_as_a_take_over_only_when_it_was_due() -> None:
    case = Case(CODE)
    sleep = case.tell(StepFailedEvent(case.commands[0].ref, "X", "x", True, 1_000))
    restored = case.crash(1_500)
    assert isinstance(restored, Sleep)
    assert restored.until_ms == sleep.until_ms
    assert not isinstance(case.entries[-1], StepInterrupted)
    call = case.crash(9_000)
    assert isinstance(call, RunCode)
    assert isinstance(case.entries[-1], StepInterrupted)
    assert call.ref.attempt == 2


def test_a_run_that_was_handed_over_counts_no_take_over() -> None:
    case = Case(CODE)
    for now_ms in range(10_000, 60_000, 10_000):
        command = case.crash(now_ms, taken_over=False)
        assert command.after == 0
    assert case.machine.status == "running"


def test_time_in_which_nobody_had_the_run_is_not_active_time() -> None:
    case = Case(CODE)
    call = case.crash(1_000_000)
    sleep = case.tell(StepFailedEvent(call.ref, "X", "x", True, 1_000_200))
    assert case.machine.active_ms == 200
    case.crash(1_000_300)
    assert case.machine.active_ms == 200
    assert sleep.until_ms > 1_000_300


def test_keys_differ_by_run_and_step() -> None:
    plan = plan_of([PAY, {**PAY, "id": "other"}])
    keys = set()
    for run in (b"a" * 16, b"b" * 16):
        for attempt in (1, 2):
            machine, [call] = Machine.start(plan, run, "hook", PAYLOAD, 0, run_attempt=attempt)
            assert isinstance(call, RunAction)
            [other] = machine.handle(ActionFinished(call.ref, b"1", 1))
            assert isinstance(other, RunAction)
            keys |= {call.key, other.key}
    assert len(keys) == 8
