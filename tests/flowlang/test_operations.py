"""Edit operations: what each does, what it refuses, and the algebra they keep."""

from __future__ import annotations

import json

import msgspec
import pytest

from flowlang.documents import read_yaml
from flowlang.editing import find_step
from flowlang.model import Branch, CodeStep, Flow, Json, LoopStep, RouterStep, Step
from flowlang.operation_kinds import (
    AddBranch,
    AddStep,
    DeleteBranch,
    DeleteStep,
    DeleteTrigger,
    DuplicateBranch,
    DuplicateStep,
    Import,
    MoveBranch,
    MoveStep,
    Operation,
    PasteSteps,
    Rename,
    SetNote,
    SkipStep,
    UpdateBranch,
    UpdateStep,
    UpdateTrigger,
)
from flowlang.operations import OperationError, apply, apply_all, decode_operation
from flowlang.structure import bodies, step_ids

BASE = read_yaml(b"""
name: Base
triggers:
  - {id: hook, piece: webhook, event: catch}
steps:
  - {id: order, kind: code, source: x, input: {a: "{{trigger.body}}"}}
  - id: size
    kind: router
    branches:
      - name: Big
        when: [[{left: "{{order.total}}", op: greater_than, right: 5}]]
        steps:
          - {id: sign, kind: code, source: x, input: {a: "{{order.id}}"}}
      - {name: Otherwise, fallback: true}
  - id: each
    kind: loop
    items: "{{order.lines}}"
    collect: "{{each.ship.id}} {{ship}}"
    steps:
      - {id: ship, kind: code, source: x, input: {a: "{{each.item}} {{ order.id + `${order.x}` }}"}}
  - {id: last, kind: code, source: x, input: {a: "{{sign}}{{ {order} }}{{ [1].map(order => order) }}"}}
""")


def step(step_id: str) -> CodeStep:
    return CodeStep(id=step_id, source="x")


def outline(flow: Flow) -> Json:
    """Ids as nested lists: what stands where."""

    def shown(one: Step) -> Json:
        held: list[Json] = [[shown(inner) for inner in body] for body in bodies(one)]
        return {one.id: held} if held else one.id

    return [shown(one) for one in flow.steps]


def input_of(flow: Flow, step_id: str) -> Json:
    found = find_step(flow, step_id)
    assert found is not None
    assert isinstance(found.step, CodeStep)
    return found.step.input["a"]


class TestPlaces:
    @pytest.mark.parametrize(
        ("operation", "expected"),
        [
            (AddStep(step=step("n")), ["order", {"size": [["sign"], []]}, {"each": [["ship"]]}, "last", "n"]),
            (AddStep(step=step("n"), index=0), ["n", "order", {"size": [["sign"], []]}, {"each": [["ship"]]}, "last"]),
            (
                AddStep(step=step("n"), after="sign"),
                ["order", {"size": [["sign", "n"], []]}, {"each": [["ship"]]}, "last"],
            ),
            (
                AddStep(step=step("n"), parent="size", branch=1),
                ["order", {"size": [["sign"], ["n"]]}, {"each": [["ship"]]}, "last"],
            ),
            (
                MoveStep(step_id="order", parent="each", index=1),
                [{"size": [["sign"], []]}, {"each": [["ship", "order"]]}, "last"],
            ),
            (
                MoveStep(step_id="order", after="each"),
                [{"size": [["sign"], []]}, {"each": [["ship"]]}, "order", "last"],
            ),
            (
                MoveStep(step_id="size", parent="each", index=0),
                ["order", {"each": [[{"size": [["sign"], []]}, "ship"]]}, "last"],
            ),
            (DeleteStep(step_id="each"), ["order", {"size": [["sign"], []]}, "last"]),
            (
                DuplicateStep(step_id="size"),
                ["order", {"size": [["sign"], []]}, {"size_2": [["sign_2"], []]}, {"each": [["ship"]]}, "last"],
            ),
            (
                PasteSteps(steps=[step("order"), step("n")], parent="each"),
                ["order", {"size": [["sign"], []]}, {"each": [["ship", "order_2", "n"]]}, "last"],
            ),
            (
                MoveBranch(step_id="size", branch=0, index=1),
                ["order", {"size": [[], ["sign"]]}, {"each": [["ship"]]}, "last"],
            ),
            (DeleteBranch(step_id="size", branch=0), ["order", {"size": [[]]}, {"each": [["ship"]]}, "last"]),
            (
                DuplicateBranch(step_id="size", branch=0),
                ["order", {"size": [["sign"], ["sign_2"], []]}, {"each": [["ship"]]}, "last"],
            ),
            (
                AddBranch(step_id="size", branch=Branch(name="C", steps=[step("n")]), index=0),
                ["order", {"size": [["n"], ["sign"], []]}, {"each": [["ship"]]}, "last"],
            ),
        ],
    )
    def test_what_stands_where_afterwards(self, operation: Operation, expected: Json) -> None:
        assert outline(apply(BASE, operation)) == expected


class TestChanges:
    def test_fields_of_a_step_are_replaced(self) -> None:
        changed = apply(BASE, UpdateStep(step_id="each", changes={"concurrency": 5, "items": "{{trigger.a}}"}))
        found = find_step(changed, "each")
        assert found is not None
        assert isinstance(found.step, LoopStep)
        assert (found.step.concurrency, found.step.items) == (5, "{{trigger.a}}")
        assert [inner.id for inner in found.step.steps] == ["ship"]

    def test_a_branch_is_changed_and_keeps_its_steps(self) -> None:
        when: Json = [[{"left": "{{trigger.a}}", "op": "exists"}]]
        changed = apply(BASE, UpdateBranch(step_id="size", branch=0, changes={"name": "Huge", "when": when}))
        router = changed.steps[1]
        assert isinstance(router, RouterStep)
        assert (router.branches[0].name, router.branches[0].when[0][0].op) == ("Huge", "exists")
        assert router.branches[0].steps == BASE.steps[1].branches[0].steps  # type: ignore[union-attr]  # a router too

    def test_the_copy_of_a_fallback_is_none(self) -> None:
        router = apply(BASE, DuplicateBranch(step_id="size", branch=1)).steps[1]
        assert isinstance(router, RouterStep)
        assert [(branch.name, branch.fallback) for branch in router.branches[1:]] == [
            ("Otherwise", True),
            ("Otherwise (copy)", False),
        ]

    def test_skip_note_and_name(self) -> None:
        changed = apply_all(
            BASE,
            [
                SkipStep(step_id="ship"),
                SetNote(id="ship", note="Ships."),
                SetNote(id="hook", note="Hooks."),
                SetNote(note="All."),
                Rename(name=" New "),
            ],
        )
        found = find_step(changed, "ship")
        assert found is not None
        assert (found.step.skip, found.step.note) == (True, "Ships.")
        assert (changed.name, changed.note, changed.triggers[0].note) == ("New", "All.", "Hooks.")
        assert apply(changed, SkipStep(step_id="ship", skip=False)) != changed

    def test_triggers(self) -> None:
        added = apply(
            BASE, decode_operation(b'{"op":"add_trigger","index":0,"trigger":{"id":"t","piece":"p","event":"e"}}')
        )
        assert [trigger.id for trigger in added.triggers] == ["t", "hook"]
        changed = apply(added, UpdateTrigger(trigger_id="t", changes={"event": "f", "id": "u"}))
        assert (changed.triggers[0].id, changed.triggers[0].event) == ("u", "f")
        assert apply(changed, DeleteTrigger(trigger_id="u")) == BASE

    def test_import_replaces_the_document(self) -> None:
        assert apply(BASE, Import(document={"name": "Other"})) == Flow(name="Other")


class TestRenamingAStep:
    def test_expressions_follow_a_new_id(self) -> None:
        changed = apply(BASE, UpdateStep(step_id="order", changes={"id": "po"}))
        router, loop = changed.steps[1], changed.steps[2]
        assert isinstance(router, RouterStep)
        assert isinstance(loop, LoopStep)
        assert router.branches[0].when[0][0].left == "{{po.total}}"
        assert loop.items == "{{po.lines}}"
        assert input_of(changed, "sign") == "{{po.id}}"
        assert input_of(changed, "ship") == "{{each.item}} {{ po.id + `${po.x}` }}"
        assert input_of(changed, "last") == "{{sign}}{{ {order: po} }}{{ [1].map(order => order) }}"

    def test_a_loop_and_its_steps_are_followed_too(self) -> None:
        changed = apply(BASE, UpdateStep(step_id="each", changes={"id": "all"}))
        changed = apply(changed, UpdateStep(step_id="ship", changes={"id": "send"}))
        loop = changed.steps[2]
        assert isinstance(loop, LoopStep)
        assert loop.collect == "{{all.send.id}} {{send}}"
        assert input_of(changed, "send") == "{{all.item}} {{ order.id + `${order.x}` }}"

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("{{order}}", "{{po}}"),
            ("{{ order['order'].order?.order }}", "{{ po['order'].order?.order }}"),
            ("{{ 'order' + order }}", "{{ 'order' + po }}"),
            ("{{ {order: 1, a: order} }}", "{{ {order: 1, a: po} }}"),
            ("{{ f(a, order, b) }}", "{{ f(a, po, b) }}"),
            ("{{ {a, order, b} }}", "{{ {a, order: po, b} }}"),
            ("{{ [a, order, {b}] }}", "{{ [a, po, {b}] }}"),
            ("order {{ orders }} {{ /order/ }}", "order {{ orders }} {{ /order/ }}"),
            ("{{ order }} {{", "{{ order }} {{"),
            ("{{ ((order) => order)(1) }}", "{{ ((order) => order)(1) }}"),
        ],
    )
    def test_only_what_means_the_step_changes(self, before: str, after: str) -> None:
        flow = apply(BASE, UpdateStep(step_id="last", changes={"input": {"a": before}}))
        assert input_of(apply(flow, UpdateStep(step_id="order", changes={"id": "po"})), "last") == after

    def test_copies_refer_to_each_other(self) -> None:
        copied = apply(BASE, DuplicateStep(step_id="each")).steps[3]
        assert isinstance(copied, LoopStep)
        assert copied.collect == "{{each_2.ship_2.id}} {{ship_2}}"
        assert copied.items == "{{order.lines}}"


REFUSED: list[tuple[Operation, str]] = [
    (AddStep(step=step("order")), "is taken"),
    (AddStep(step=step("hook")), "is taken"),
    (AddStep(step=step("trigger")), "means something else"),
    (AddStep(step=step("n"), index=9), "out of it"),
    (AddStep(step=step("n"), index=-1), "out of it"),
    (AddStep(step=step("n"), parent="nobody"), "no step `nobody`"),
    (AddStep(step=step("n"), parent="order"), "no branch 0"),
    (AddStep(step=step("n"), parent="size", branch=2), "no branch 2"),
    (AddStep(step=step("n"), after="nobody"), "no step `nobody`"),
    (UpdateStep(step_id="order", changes={"id": "each"}), "is taken"),
    (UpdateStep(step_id="order", changes={"id": "a b"}), "must begin"),
    (UpdateStep(step_id="order", changes={"sauce": 1}), "unknown field `sauce`"),
    (UpdateStep(step_id="order", changes={"source": 1}), "`source` must be a text"),
    (UpdateStep(step_id="order", changes={"kind": "loop"}), "keeps its kind"),
    (UpdateStep(step_id="nobody", changes={}), "no step"),
    (MoveStep(step_id="each", parent="each"), "into or after itself"),
    (MoveStep(step_id="each", after="ship"), "into or after itself"),
    (DeleteStep(step_id="hook"), "no step"),
    (SkipStep(step_id="nobody"), "no step"),
    (DeleteBranch(step_id="each", branch=0), "no router"),
    (DeleteBranch(step_id="size", branch=2), "no branch 2"),
    (MoveBranch(step_id="size", branch=0, index=2), "no branch 2"),
    (
        UpdateBranch(step_id="size", branch=0, changes={"steps": [{"kind": "code", "id": "order", "source": ""}]}),
        "taken",
    ),
    (DeleteTrigger(trigger_id="order"), "no trigger"),
    (SetNote(id="nobody", note=""), "no trigger"),
    (Rename(name="  "), "1 to 200"),
    (Rename(name="a\0b"), "no control characters"),
    (Import(document=[]), "object"),
    (Import(document={"name": "x", "steps": [{"kind": "code", "id": "a", "source": ""}] * 2}), "more than once"),
]


@pytest.mark.parametrize(("operation", "words"), REFUSED)
def test_what_cannot_be_applied_is_refused_with_its_index(operation: Operation, words: str) -> None:
    with pytest.raises(OperationError) as caught:
        apply_all(BASE, [Rename(name="A"), operation, Rename(name="B")])
    assert words in caught.value.message
    assert caught.value.index == 1


class TestReadingOperations:
    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b'{"op":"explode"}', "explode"),
            (b'{"op":"rename"}', "lacks the field `name`"),
            (b'{"op":"rename","name":"x","nome":"y"}', "unknown field `nome`"),
            (b'{"op":"add_step","step":{"kind":"code","id":"a"}}', "lacks the field `source`"),
            (b"{", "no JSON"),
            (b'{"op":"import","document":' + b"[" * 100_000, "no JSON"),
        ],
    )
    def test_what_is_no_operation(self, data: bytes, words: str) -> None:
        with pytest.raises(OperationError) as caught:
            decode_operation(data, 3)
        assert words in caught.value.message
        assert caught.value.index == 3

    @pytest.mark.parametrize("operation", [operation for operation, _ in REFUSED])
    def test_operations_survive_the_wire(self, operation: Operation) -> None:
        assert decode_operation(msgspec.json.encode(operation)) == operation


class TestBounds:
    def test_a_tree_that_would_be_too_deep_is_refused(self) -> None:
        flow = Flow(name="x")
        for number in range(20):
            parent = f"l{number - 1}" if number else ""
            flow = apply(flow, AddStep(step=LoopStep(id=f"l{number}", items="{{trigger}}"), parent=parent))
        with pytest.raises(OperationError, match="20 deep"):
            apply(flow, AddStep(step=step("n"), parent="l19"))

    def test_a_document_that_would_be_too_big_or_too_deep_is_refused(self) -> None:
        deep: Json = json.loads("[" * 130 + "]" * 130)
        with pytest.raises(OperationError, match="1 MiB"):
            apply(BASE, SetNote(note="x" * 1_100_000))
        with pytest.raises(OperationError, match="deeper than 128"):
            apply(BASE, UpdateStep(step_id="order", changes={"input": {"a": deep}}))

    def test_a_document_with_an_id_twice_can_still_be_mended(self) -> None:
        twice = Flow(name="x", steps=[step("a"), step("a")])
        mended = apply(twice, UpdateStep(step_id="a", changes={"id": "b"}))
        assert step_ids(mended) == ["b", "a"]
