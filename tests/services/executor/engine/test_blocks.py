"""Routers and loops: what runs, what is in scope, what happens to siblings of a failure."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from services.executor.engine.commands import Evaluate, RunAction, RunCode, Sleep
from services.executor.engine.events import ActionFinished, StepFailedEvent, Woken
from services.executor.engine.journal import IterationFinished, decode_chunk, encode_chunk
from services.executor.engine.limits import Limits
from services.executor.engine.machine import Machine
from tests.services.executor.engine.world import PAYLOAD, RUN_ID, Driver, World, plan_of, tell


def call(step_id: str, value: object = "x", action: str = "pure", **more: Any) -> dict[str, Any]:
    return {"id": step_id, "kind": "action", "piece": "toy", "action": action, "input": {"v": value}, **more}


def loop(step_id: str, items: object, *steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": step_id, "kind": "loop", "items": items, "steps": list(steps), **more}


def router(mode: str, **when: object) -> dict[str, Any]:
    branches: list[dict[str, Any]] = [
        {"name": name, "when": [[{"left": left, "op": "is_true"}]], "steps": [call(name)]}
        for name, left in when.items()
    ]
    branches.append({"name": "Else", "fallback": True, "steps": [call("otherwise")]})
    return {"id": "way", "kind": "router", "mode": mode, "branches": branches}


def outputs(driver: Driver) -> dict[str, Any]:
    done = driver.run().machine
    assert done.answer is not None
    return {"answer": msgspec.json.decode(done.answer.body), "calls": [c[:2] for c in driver.world.calls]}


def run(*steps: dict[str, Any], seed: int = 0, world: World | None = None) -> dict[str, Any]:
    return outputs(Driver(plan_of(steps), world or World(), seed))


@pytest.mark.parametrize(
    ("mode", "when", "expected"),
    [
        ("first_match", {"a": True, "b": True}, ["a"]),
        ("all_matches", {"a": True, "b": "{{trigger.body.ok}}"}, ["a", "b"]),
        ("all_matches", {"a": False, "b": "{{trigger.missing}}"}, ["otherwise"]),
        ("first_match", {"a": False, "b": "{{trigger.body.ok + ''}}"}, ["b"]),
    ],
)
def test_a_router_runs_the_branches_that_match(mode: str, when: dict[str, object], expected: list[str]) -> None:
    after = call("after", {"first": "{{way.branch}}", "all": "{{way.branches}}"})
    result = run(router(mode, **when), after)
    assert [step for step, _ in result["calls"]] == [*expected, "after"]
    names = ["Else" if name == "otherwise" else name for name in expected]
    assert result["answer"]["input"]["v"] == {"first": names[0], "all": names}


def test_all_conditions_of_a_router_are_one_isolate_call() -> None:
    plan = plan_of([router("first_match", a="{{trigger.n + ''}}", b="{{trigger.body.owner + ''}}")])
    _, [command] = Machine.start(plan, RUN_ID, "hook", PAYLOAD, 0)
    assert isinstance(command, Evaluate)
    assert command.expressions == ("trigger.n + ''", "trigger.body.owner + ''")
    assert command.scope == {"trigger": PAYLOAD}


@pytest.mark.parametrize("expression", ["trigger.body.ok", "{{trigger.body.ok}}"])
def test_a_condition_may_be_one_free_expression(expression: str) -> None:
    way = router("first_match", a=False)
    way["branches"][0]["when"] = [[{"expression": expression}]]
    assert run(way)["calls"] == [("a", ())]


def test_a_loop_runs_its_steps_for_each_item_and_collects_in_order() -> None:
    each = loop("each", "{{trigger.list}}", call("ship", {"i": "{{each.item}}", "n": "{{each.index}}"}))
    each |= {"collect": "{{ship.input.v}}", "concurrency": 3}
    for seed in range(5):
        result = run(each, seed=seed)
        expected = [{"i": item, "n": n} for n, item in enumerate([3, 1, 2])]
        assert result["answer"] == {"count": 3, "failed": 0, "items": expected}


def test_inside_a_loop_its_id_also_holds_the_steps_of_the_iteration_and_outer_loops() -> None:
    inner = loop("inner", ["p", "q"], call("b", "{{outer.a.input.v}}-{{inner.item}}-{{outer.item}}"))
    inner["collect"] = "{{b.input.v}}"
    outer = loop(
        "outer", [1, 2], call("a", "{{outer.index}}"), inner, collect="{{outer.inner.items + ''}}{{inner.items}}"
    )
    result = run(outer)
    assert result["answer"]["items"] == [
        "[\"0-p-1\",\"0-q-1\"][\"0-p-1\",\"0-q-1\"]", "[\"1-p-2\",\"1-q-2\"][\"1-p-2\",\"1-q-2\"]",
    ]  # fmt: skip


def test_steps_of_one_iteration_are_not_in_scope_of_another_nor_after_the_loop() -> None:
    late = call("late", "{{early}}")
    early = call("early", 1)
    result = run(loop("each", [1, 2], late, early), call("after", {"late": "{{late}}", "each": "{{each}}"}))
    assert result["answer"]["input"]["v"] == {"late": None, "each": {"count": 2, "failed": 0}}


def test_at_most_so_many_items_are_open_as_concurrency_allows() -> None:
    plan = plan_of([loop("each", list(range(10)), call("ship"), concurrency=4)])
    machine, commands = Machine.start(plan, RUN_ID, "hook", PAYLOAD, 0)
    assert len(commands) == 4
    for _ in range(6):
        first, *rest = commands
        assert isinstance(first, RunAction)
        commands = [*rest, *tell(machine, ActionFinished(first.ref, b"1", 1))]
        assert len(commands) == 4


def test_items_that_fail_are_counted_and_listed_when_the_loop_goes_on_after_errors() -> None:
    world = World(outcome=lambda ref: "fatal" if ref.indices == (1,) else "ok")
    each = loop("each", ["a", "b", "c"], call("ship"), on_error="continue", collect="{{each.item}}", concurrency=2)
    result = run(each, world=world)
    errors = [{"index": 1, "step": "ship", "kind": "TOY", "message": "fatal failure"}]
    assert result["answer"] == {"count": 3, "failed": 1, "items": ["a", None, "c"], "errors": errors}


def start_concurrent(on_failure: str) -> tuple[Machine, list[RunAction]]:
    retry = {"max_attempts": 2, "initial_interval": "1h"}
    steps = (call("one", action="effect", retry=retry), call("two"))
    plan = plan_of([loop("each", list(range(9)), *steps, concurrency=3, on_failure=on_failure)])
    machine, commands = Machine.start(plan, RUN_ID, "hook", PAYLOAD, 0)
    return machine, [command for command in commands if isinstance(command, RunAction)]


def test_after_a_failure_siblings_stop_at_their_next_step_boundary() -> None:
    machine, [a, b, c] = start_concurrent("stop")
    [sleep] = tell(machine, StepFailedEvent(c.ref, "X", "x", True, 1))
    assert tell(machine, StepFailedEvent(a.ref, "FIRST", "x", False, 2)) == []
    assert tell(machine, Woken(sleep.ref, 5)) == [], "a retry that has not begun is not begun any more"
    assert machine.error is None, "an effect in flight is waited for and recorded"
    tell(machine, ActionFinished(b.ref, b"1", 6))
    assert machine.status == "failed"
    assert machine.error is not None
    assert (machine.error.kind, machine.error.indices) == ("FIRST", (0,))


def test_after_a_failure_siblings_end_first_where_the_author_says_so() -> None:
    machine, [a, b, c] = start_concurrent("finish")
    [sleep] = tell(machine, StepFailedEvent(c.ref, "X", "x", True, 1))
    tell(machine, StepFailedEvent(a.ref, "FIRST", "x", False, 2))
    [two] = tell(machine, ActionFinished(b.ref, b"1", 6))
    assert isinstance(two, RunAction)
    assert tell(machine, ActionFinished(two.ref, b"1", 7)) == [], "no new item"
    [again] = tell(machine, Woken(sleep.ref, 3_600_001))
    assert isinstance(again, RunAction)
    tell(machine, StepFailedEvent(again.ref, "SECOND", "x", False, 3_600_002))
    assert machine.error is not None
    assert machine.error.kind == "FIRST"


def test_items_under_way_at_a_failure_are_carried_to_their_end_over_a_crash_as_well() -> None:
    plan = plan_of([loop("each", list(range(9)), call("one"), concurrency=3, on_failure="finish")])
    machine, [_, b, _] = Machine.start(plan, RUN_ID, "hook", PAYLOAD, 0)
    assert isinstance(b, RunAction)
    tell(machine, StepFailedEvent(b.ref, "FIRST", "x", False, 1))
    machine, commands = Machine.recover(plan, RUN_ID, machine.take_entries(), 2)
    calls = [command for command in commands if isinstance(command, RunAction)]
    assert [command.ref.indices for command in calls] == [(0,), (2,)]
    tell(machine, ActionFinished(calls[0].ref, b"1", 3))
    tell(machine, ActionFinished(calls[1].ref, b"1", 4))
    assert machine.error is not None
    assert (machine.error.kind, machine.error.indices) == ("FIRST", (1,))


def test_a_router_goes_on_after_the_branch_it_was_cut_off_in() -> None:
    plan = plan_of([router("all_matches", a=True, b=True, c=True)])
    machine, [a] = Machine.start(plan, RUN_ID, "hook", PAYLOAD, 0)
    assert isinstance(a, RunAction)
    [b] = tell(machine, ActionFinished(a.ref, b"1", 1))
    [c] = tell(machine, ActionFinished(b.ref, b"1", 2))
    entries = machine.take_entries()
    assert c.step_id == "c"
    for upto, expected in ((len(entries), "c"), (3, "b"), (2, "a")):
        machine, [again] = Machine.recover(plan, RUN_ID, entries[:upto], 3)
        assert isinstance(again, RunAction)
        assert again.step_id == expected
    machine, [c] = Machine.recover(plan, RUN_ID, entries, 3)
    assert isinstance(c, RunAction)
    tell(machine, ActionFinished(c.ref, b"1", 4))
    assert machine.status == "succeeded"


@pytest.mark.parametrize(
    ("items", "kind"),
    [
        ("{{trigger.missing}}", "ITEMS_NOT_A_LIST"),
        ("text", "ITEMS_NOT_A_LIST"),
        (list(range(6)), "TOO_MANY_ITERATIONS"),
    ],
)
def test_a_loop_needs_a_list_and_not_too_long_a_one(items: object, kind: str) -> None:
    limits = Limits(loop_iterations=5)
    plan = plan_of([loop("each", items, call("ship"))])
    machine, _ = Machine.start(plan, RUN_ID, "hook", PAYLOAD, 0, limits)
    assert machine.error is not None
    assert (machine.error.kind, machine.error.step_id) == (kind, "each")


def test_an_empty_loop_ends_at_once() -> None:
    assert run(loop("each", [], call("ship"), collect=1))["answer"] == {"count": 0, "failed": 0, "items": []}


def test_much_work_without_commands_leaves_the_driver_a_breath() -> None:
    plan = plan_of([loop("each", list(range(5_000)), collect="{{each.item}}", concurrency=2)])
    machine, commands = Machine.start(plan, RUN_ID, "hook", PAYLOAD, 0)
    breaths = 0
    while machine.status == "running":
        [pause] = commands
        assert isinstance(pause, Sleep)
        breaths += 1
        commands = tell(machine, Woken(pause.ref, 0))
    assert breaths >= 2
    assert machine.answer is not None
    assert msgspec.json.decode(machine.answer.body)["items"] == list(range(5_000))


def test_entries_of_finished_iterations_are_not_needed_for_recovery() -> None:
    driver = Driver(plan_of([loop("each", ["a", "b", "c"], call("ship"), collect="{{ship.v}}")]), World()).run()
    expected = driver.machine.answer
    entries = [entry for entry in driver.entries() if getattr(entry, "indices", ()) != (0,)][:-4]
    assert isinstance(entries[2], IterationFinished)
    again = Driver.recovered(driver, [encode_chunk(entries)], World(), 1).run()
    assert again.machine.answer is not None
    assert expected is not None
    assert again.machine.answer.body == expected.body
    assert decode_chunk(encode_chunk(entries)) == entries


def test_a_code_step_of_a_plan_is_found_by_its_id() -> None:
    plan = plan_of([{"id": "sum", "kind": "code", "source": "1", "language": "javascript"}, call("other")])
    assert (plan.code("sum").source, plan.code("sum").language) == ("1", "javascript")
    _, [command] = Machine.start(plan, RUN_ID, "hook", PAYLOAD, 0)
    assert isinstance(command, RunCode)
    with pytest.raises(KeyError):
        plan.code("other")
