"""The course of a run: steps in order, answers, ends, limits, stale events."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from services.executor.engine.commands import Answer, Evaluate, Finish, RunAction, RunCode
from services.executor.engine.events import (
    ActionFinished,
    CancelRequested,
    CodeFinished,
    EvaluationFailed,
    StepFailedEvent,
    TimedOut,
    Woken,
)
from services.executor.engine.journal import Responded, RunStarted, StepFailed, StepFinished, StepInterrupted
from services.executor.engine.limits import Limits
from services.executor.engine.machine import Machine
from services.executor.engine.plan import PlanError
from services.executor.engine.run import Surroundings
from tests.services.executor.engine.world import PAYLOAD, RUN_ID, Driver, World, plan_of, tell

CODE: dict[str, Any] = {"id": "order", "kind": "code", "source": "-", "input": {"raw": "{{trigger.body}}"}}
EFFECT: dict[str, Any] = {"id": "pay", "kind": "action", "piece": "toy", "action": "effect", "input": {"sum": 3}}


def start(*steps: dict[str, Any], **limits: int) -> tuple[Machine, list[Any]]:
    chosen = Limits(**limits)
    machine, commands = Machine.start(plan_of(steps, chosen), RUN_ID, "hook", PAYLOAD, 1_000, chosen)
    return machine, list(commands)


def test_steps_run_in_order_and_the_last_output_is_the_answer() -> None:
    machine, [call] = start(CODE, {**EFFECT, "action": "pure", "input": {"total": "{{order.total}}"}})
    assert isinstance(call, RunCode)
    assert (call.step_id, call.input, call.after) == ("order", b'{"raw":{"owner":"ada","ok":true}}', 0)
    [action] = tell(machine, CodeFinished(call.ref, b'{"total":5}', b"", 1_010))
    assert isinstance(action, RunAction)
    assert (action.input, action.after, action.key) == (b'{"total":5}', 0, "")
    answer, finish = tell(machine, ActionFinished(action.ref, b'"done"', 1_020))
    assert answer == Answer(200, {}, b'"done"', 4)
    assert finish == Finish("succeeded", None, 4)
    assert len(machine.take_entries()) == machine.entries_made == 4
    assert (machine.status, machine.steps_finished) == ("succeeded", 2)


def test_a_flow_of_pure_steps_asks_for_no_flush_before_its_end() -> None:
    machine, [call] = start(CODE, {**CODE, "id": "again"})
    assert not machine.wants_flush
    tell(machine, CodeFinished(call.ref, b"1", b"", 1_010))
    assert not machine.wants_flush


def test_an_effect_waits_for_its_start_to_be_durable_and_its_outcome_is_urgent() -> None:
    machine, [call] = start(EFFECT, CODE)
    assert call.after == machine.entries_made == 2
    assert machine.wants_flush
    machine.take_entries()
    tell(machine, ActionFinished(call.ref, b"1", 1_010))
    assert machine.wants_flush


def test_a_store_action_is_marked_as_part_of_the_commit_and_has_no_barrier() -> None:
    _, [call] = start({**EFFECT, "action": "store", "effect": "effect"})
    assert (call.transactional, call.after) == (True, 0)
    assert call.key


def test_the_author_overrides_what_the_piece_declares() -> None:
    _, [call] = start({**EFFECT, "effect": "read"})
    assert (call.effect, call.after) == ("read", 0)


def test_a_flow_without_steps_succeeds_and_a_skipped_step_leaves_null() -> None:
    machine, commands = start({**CODE, "skip": True})
    assert machine.status == "succeeded"
    assert commands[0] == Answer(200, {}, b"null", 2)
    _, [call] = start({**CODE, "skip": True}, {**EFFECT, "input": {"x": "{{order.total}}", "y": "{{order + ''}}"}})
    assert isinstance(call, Evaluate)
    assert call.scope == {"order": b"null"}


def test_a_failed_step_ends_the_run_named_and_the_caller_is_told() -> None:
    machine, [call] = start(CODE)
    answer, finish = tell(machine, StepFailedEvent(call.ref, "THROWN", "no such line", True, 1_010))
    assert machine.status == "failed"
    assert machine.error == finish.error
    assert (finish.error.step_id, finish.error.attempt, finish.error.kind) == ("order", 1, "THROWN")
    assert answer.status == 500
    told = {"kind": "THROWN", "message": "no such line", "step": "order"}
    assert msgspec.json.decode(answer.body) == {"error": told}


def test_a_step_that_goes_on_after_an_error_shows_the_error_to_later_steps() -> None:
    machine, [call] = start({**CODE, "on_error": "continue"}, {**EFFECT, "input": {"e": "{{order.error.kind}}"}})
    [action] = tell(machine, StepFailedEvent(call.ref, "THROWN", "no", False, 1_010))
    assert action.input == b'{"e":"THROWN"}'
    assert machine.status == "running"


def test_memory_exceeded_is_a_state_of_its_own() -> None:
    machine, [call] = start(CODE)
    tell(machine, StepFailedEvent(call.ref, "MEMORY_EXCEEDED", "128 MiB are allowed", False, 1_010))
    assert machine.status == "memory_exceeded"


def test_only_the_first_response_counts() -> None:
    respond = {"kind": "respond", "headers": {"x-n": "{{trigger.n}}"}}
    machine, commands = start(
        {**respond, "id": "a", "status": 201, "body": {"ok": "{{trigger.n}}"}}, {**respond, "id": "b", "body": 2}
    )
    answers = [command for command in commands if isinstance(command, Answer)]
    assert answers == [Answer(201, {"x-n": "7"}, b'{"ok":7}', 2)]
    noted = [entry.ignored for entry in machine.take_entries() if isinstance(entry, Responded)]
    assert noted == [False, True]


def test_an_answer_that_is_durable_is_not_given_again_after_a_recovery() -> None:
    plan = plan_of([{"id": "a", "kind": "respond", "body": 1}, CODE])
    machine, _ = Machine.start(plan, RUN_ID, "hook", PAYLOAD, 1_000)
    machine, commands = Machine.recover(plan, RUN_ID, machine.take_entries(), 2_000)
    assert [type(command) for command in commands] == [RunCode]
    assert not any(isinstance(entry, Responded) for entry in machine.take_entries())
    assert machine.answer is not None
    assert machine.answer.body == b"1"


@pytest.mark.parametrize("status", [99, 700, "teapot", None, 200.5, True])
def test_an_answer_needs_a_proper_status(status: object) -> None:
    machine, _ = start({"id": "a", "kind": "respond", "status": status})
    assert machine.error is not None
    assert machine.error.kind == "RESPONSE_INVALID"


def test_a_failed_expression_fails_the_step_and_is_never_tried_again() -> None:
    machine, [call] = start({**CODE, "input": {"x": "{{boom()}}"}, "retry": {"max_attempts": 3}})
    assert isinstance(call, Evaluate)
    tell(machine, EvaluationFailed(call.ref, "boom", 1_010))
    assert machine.error is not None
    assert (machine.error.kind, machine.error.attempt) == ("EXPRESSION_FAILED", 1)


def test_events_that_nobody_awaits_change_nothing() -> None:
    machine, [call] = start(CODE, EFFECT)
    wrong_kind = Woken(call.ref, 1_005)
    assert tell(machine, wrong_kind) == []
    other = msgspec.structs.replace(call.ref, attempt=2)
    assert tell(machine, CodeFinished(other, b"1", b"", 1_005)) == []
    machine.take_entries()
    assert tell(machine, CodeFinished(call.ref, b"1", b"", 1_010))
    machine.take_entries()
    assert tell(machine, CodeFinished(call.ref, b"2", b"", 1_011)) == []
    assert not machine.has_entries


def test_cancel_records_effects_in_flight_as_interrupted() -> None:
    machine, [call] = start(EFFECT)
    answer, finish = tell(machine, CancelRequested(1_010))
    assert (machine.status, finish.status, answer.status) == ("canceled", "canceled", 500)
    *_, interrupted, _ = machine.take_entries()
    assert isinstance(interrupted, StepInterrupted)
    assert (interrupted.key, interrupted.final) == (call.key, True)
    assert tell(machine, ActionFinished(call.ref, b"1", 1_020)) == []


def test_a_run_that_uses_up_its_active_time_is_timed_out_and_names_the_step() -> None:
    machine, [call] = start(CODE, {**CODE, "id": "slow"}, run_time_ms=1_500)
    assert call.timeout_ms == 1_500
    [call] = tell(machine, CodeFinished(call.ref, b"1", b"", 2_000))
    assert call.timeout_ms == 500
    tell(machine, TimedOut(call.ref, 2_500))
    assert machine.status == "timed_out"
    assert machine.error is not None
    assert (machine.error.step_id, machine.error.kind) == ("slow", "RUN_TIMED_OUT")


def test_a_wait_for_a_retry_is_no_active_time() -> None:
    retry = {"max_attempts": 2, "initial_interval": "60s", "jitter": 0}
    machine, [call] = start({**CODE, "retry": retry}, run_time_ms=1_500)
    [sleep] = tell(machine, StepFailedEvent(call.ref, "X", "x", True, 1_100))
    assert machine.wake_at_ms == sleep.until_ms == 61_100
    [again] = tell(machine, Woken(sleep.ref, 61_100))
    assert (machine.active_ms, again.timeout_ms) == (100, 1_400)


def test_a_journal_that_grows_too_large_ends_the_run() -> None:
    machine, [call] = start(CODE, {**CODE, "id": "next"}, journal_bytes=2_000)
    tell(machine, CodeFinished(call.ref, b'"%b"' % (b"x" * 3_000), b"", 1_010))
    assert machine.status == "log_too_large"
    assert machine.error is not None
    assert machine.error.step_id == "next"


def test_documents_of_a_step_are_limited() -> None:
    machine, [call] = start(CODE, document_bytes=50)
    tell(machine, CodeFinished(call.ref, b"1" * 51, b"", 1_010))
    assert machine.error is not None
    assert machine.error.kind == "OUTPUT_TOO_LARGE"
    machine, _ = start(CODE, document_bytes=20)
    assert machine.error is not None
    assert machine.error.kind == "INPUT_TOO_LARGE"


def test_nesting_is_limited_when_the_plan_is_made() -> None:
    step: dict[str, Any] = CODE
    for depth in range(5):
        step = {"id": f"loop{depth}", "kind": "loop", "items": [1], "steps": [step]}
    plan_of([step], Limits(nesting=6))
    with pytest.raises(PlanError, match="deeper than 5"):
        plan_of([step], Limits(nesting=5))


def test_a_payload_is_kept_as_given_and_opened_once_and_only_if_asked_for() -> None:
    opened: list[bytes] = []

    def unpack(document: bytes) -> bytes:
        opened.append(document)
        return document[1:]

    packed = b"\x00" + PAYLOAD
    around = Surroundings(unpack=unpack)
    machine, commands = Machine.start(plan_of([EFFECT]), RUN_ID, "hook", packed, 1_000, surroundings=around)
    assert opened == []
    entry = machine.take_entries()[0]
    assert isinstance(entry, RunStarted)
    assert entry.trigger_output == packed
    twice = [CODE, {**CODE, "id": "b", "input": {"n": "{{trigger.n}}", "t": "{{trigger.n + ''}}"}}]
    machine, commands = Machine.start(plan_of(twice), RUN_ID, "hook", packed, 1_000, surroundings=around)
    [call] = commands
    assert isinstance(call, RunCode)
    [evaluate] = tell(machine, CodeFinished(call.ref, b"1", b"", 1_001))
    assert isinstance(evaluate, Evaluate)
    assert evaluate.scope["trigger"] == PAYLOAD
    assert opened == [packed]


def test_a_document_that_cannot_be_read_fails_the_step_that_asks_for_it() -> None:
    machine, _ = Machine.start(plan_of([CODE]), RUN_ID, "hook", b"[" * 100_000, 1_000)
    assert machine.error is not None
    assert machine.error.kind == "DOCUMENT_UNREADABLE"


def test_secrets_stay_references_in_command_and_journal() -> None:
    secret = {"auth": "Bearer {{connections.shop.token}}", "n": "{{trigger.n}}"}
    machine, [call] = start({**EFFECT, "input": secret})
    assert b"shop" not in call.input
    assert call.secrets[0].path == ("auth",)
    started = machine.take_entries()[1]
    assert getattr(started, "secrets", ()) == call.secrets


def test_the_journal_holds_each_input_once() -> None:
    retry = {"max_attempts": 3, "initial_interval": "1s"}
    world = World(1, lambda ref: "ok" if ref.attempt == 3 else "retry")
    for action in ("effect", "read"):
        entries = Driver(plan_of([{**EFFECT, "action": action, "retry": retry}]), world).run().entries()
        inputs = [getattr(entry, "input", b"") for entry in entries]
        assert sum(map(bool, inputs)) == 1
    assert sum(isinstance(entry, StepFailed) for entry in entries) == 2
    assert sum(isinstance(entry, StepFinished) for entry in entries) == 1
