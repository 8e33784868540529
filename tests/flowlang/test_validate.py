"""Every fault of a document is named, with its step, its field and its reason."""

from __future__ import annotations

from textwrap import dedent, indent

import msgspec
import pytest
from hypothesis import given
from msgspec.structs import replace

from flowlang.catalogue import PieceInfo, read_catalogue
from flowlang.documents import read_yaml
from flowlang.ids import fault_in_id, fresh_id
from flowlang.model import ActionStep, Flow, Json, LoopStep, Trigger
from flowlang.validate import STEP_LIMIT, SourceRef, sources, validate
from tests.flowlang.strategies import flows

REQUEST: Json = {
    "type": "object",
    "properties": {
        "url": {"type": "string", "minLength": 1},
        "method": {"enum": ["GET", "POST"]},
        "body": {},
        "tries": {"type": "integer", "minimum": 1, "maximum": 9},
        "headers": {"type": "object", "additionalProperties": {"type": "string"}},
        "to": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "list": {"type": "array", "items": {"$ref": "#/$defs/Item"}, "maxItems": 2},
    },
    "required": ["url"],
    "$defs": {"Item": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}},
}
PIECES = read_catalogue(
    msgspec.json.encode(piece)
    for piece in (
        {
            "name": "http",
            "version": "1.0.0",
            "title": "HTTP",
            "summary": "Calls.",
            "triggers": [],
            "actions": [
                {"name": "request", "title": "Request", "summary": "Calls.", "input_schema": REQUEST,
                 "effect": "effect", "on_interruption": "retry"}
            ],
        },
        {
            "name": "webhook",
            "version": "1.2.0",
            "triggers": [{"name": "catch", "input_schema": {"type": "object"}}],
        },
        {"name": "schedule", "version": "1.0.0", "triggers": [{"name": "cron"}]},
    )
)  # fmt: skip

HEAD = "name: Test\ntriggers:\n  - {id: hook, piece: webhook, event: catch}\n"
CALL = "- {id: call, kind: action, piece: http, action: request, input: {url: x}}"


def flow_of(steps: str, head: str = HEAD) -> Flow:
    return read_yaml(f"{head}steps:\n{indent(dedent(steps), '  ')}\n".encode())


def faults(steps: str, head: str = HEAD, pieces: dict[str, PieceInfo] = PIECES) -> list[tuple[str, str, str]]:
    return [(fault.step_id, fault.field, fault.reason) for fault in validate(flow_of(steps, head), pieces)]


def action(**fields: str) -> str:
    """One HTTP step with fields added or replaced."""
    parts = {"id": "call", "kind": "action", "piece": "http", "action": "request", "input": "{url: x}"} | fields
    return "- {" + ", ".join(f"{name}: {value}" for name, value in parts.items()) + "}"


def test_a_document_without_faults() -> None:
    assert faults(CALL) == []


class TestFlow:
    def test_nothing_starts_it_and_it_has_no_name(self) -> None:
        assert faults("[]", "name: ' '\n") == [("", "name", "NAME_MISSING"), ("", "triggers", "TRIGGER_MISSING")]

    @pytest.mark.parametrize("name", ["a\0b", "a\x1b[2Jb", "a\nb", "a\u2028b", "a\x9bb"])
    def test_its_name_holds_what_nobody_sees(self, name: str) -> None:
        flow = replace(flow_of(CALL), name=name)
        assert [(fault.field, fault.reason) for fault in validate(flow, PIECES)] == [("name", "NAME_MALFORMED")]

    def test_too_many_steps(self) -> None:
        call = flow_of(CALL).steps[0]
        flow = replace(flow_of("[]"), steps=[replace(call, id=f"s{n}") for n in range(STEP_LIMIT + 1)])
        assert [fault.reason for fault in validate(flow, PIECES)] == ["TOO_MANY_STEPS"]

    def test_steps_nest_twenty_deep_and_no_deeper(self) -> None:
        def nested(depth: int) -> Flow:
            step: LoopStep = LoopStep(id=f"l{depth}", items="{{trigger.a}}")
            for number in range(depth - 1, 0, -1):
                step = LoopStep(id=f"l{number}", items="{{trigger.a}}", steps=[step])
            return replace(flow_of("[]"), steps=[step])

        assert validate(nested(20), PIECES) == []
        deeper = validate(nested(23), PIECES)
        assert [(fault.step_id, fault.reason) for fault in deeper] == [("l21", "NESTED_TOO_DEEP")]


class TestIds:
    def test_an_id_stands_once_over_triggers_and_steps(self) -> None:
        assert faults(action(id="hook") + "\n" + CALL + "\n" + CALL) == [
            ("hook", "id", "ID_TAKEN"),
            ("call", "id", "ID_TAKEN"),
        ]

    @pytest.mark.parametrize(
        "name",
        ["1a", "", "a-b", "a b", "ä", "a" * 65, "_a", "trigger", "connections", "item", "return", "Math", "error"],
    )
    def test_what_cannot_be_an_id(self, name: str) -> None:
        assert fault_in_id(name)

    @pytest.mark.parametrize("name", ["a", "A1_b", "a" * 64, "fetch", "get", "order"])
    def test_what_can_be_an_id(self, name: str) -> None:
        assert not fault_in_id(name)

    def test_a_fresh_id_counts_on(self) -> None:
        assert fresh_id("ship", {"other"}) == "ship"
        assert fresh_id("ship", {"ship"}) == "ship_2"
        assert fresh_id("ship_2", {"ship", "ship_2"}) == "ship_3"
        assert len(fresh_id("a" * 64, {"a" * 64})) == 64


class TestPieces:
    @pytest.mark.parametrize(
        ("fields", "field", "reason"),
        [
            ({"piece": "ftp"}, "piece", "PIECE_UNKNOWN"),
            ({"action": "rquest"}, "action", "ACTION_UNKNOWN"),
            ({"version": "9.0.0"}, "version", "PIECE_VERSION_UNKNOWN"),
            ({"input": "{}"}, "input.url", "INPUT_MISSING"),
            ({"input": "{url: x, ulr: y}"}, "input.ulr", "INPUT_UNKNOWN"),
            ({"input": "{url: 5}"}, "input.url", "INPUT_WRONG_TYPE"),
            ({"input": "{url: ''}"}, "input.url", "INPUT_NOT_ALLOWED"),
            ({"input": "{url: x, method: PUT}"}, "input.method", "INPUT_NOT_ALLOWED"),
            ({"input": "{url: x, tries: '3'}"}, "input.tries", "INPUT_WRONG_TYPE"),
            ({"input": "{url: x, tries: 1.5}"}, "input.tries", "INPUT_WRONG_TYPE"),
            ({"input": "{url: x, tries: true}"}, "input.tries", "INPUT_WRONG_TYPE"),
            ({"input": "{url: x, tries: 10}"}, "input.tries", "INPUT_NOT_ALLOWED"),
            ({"input": "{url: x, tries: '{{trigger.n}} times'}"}, "input.tries", "INPUT_WRONG_TYPE"),
            ({"input": "{url: x, headers: {X-A: 1}}"}, 'input.headers["X-A"]', "INPUT_WRONG_TYPE"),
            ({"input": "{url: x, to: 1}"}, "input.to", "INPUT_WRONG_TYPE"),
            ({"input": "{url: x, list: [{id: a}, {}]}"}, "input.list[1].id", "INPUT_MISSING"),
            ({"input": "{url: x, list: [{id: a}, {id: a}, {id: a}]}"}, "input.list", "INPUT_NOT_ALLOWED"),
        ],
    )
    def test_what_a_piece_does_not_take(self, fields: dict[str, str], field: str, reason: str) -> None:
        assert faults(action(**fields)) == [("call", field, reason)]

    @pytest.mark.parametrize(
        "given_input",
        [
            "{url: '{{trigger.url}}', tries: '{{trigger.n}}', list: '{{trigger.list}}'}",
            "{url: 'https://{{trigger.host}}/', tries: 3, to: null, body: [1, {a: b}]}",
            "{url: x, headers: {X-A: b}, list: [{id: a, more: 1}]}",
        ],
    )
    def test_what_it_takes(self, given_input: str) -> None:
        assert faults(action(input=given_input, version="1.0.0")) == []

    def test_triggers_are_looked_up_too(self) -> None:
        head = "name: x\ntriggers:\n  - {id: a, piece: ftp, event: e}\n  - {id: b, piece: webhook, event: e}\n"
        assert faults("[]", head) == [("a", "piece", "PIECE_UNKNOWN"), ("b", "event", "TRIGGER_UNKNOWN")]


class TestTiming:
    @pytest.mark.parametrize(
        ("fields", "field", "reason"),
        [
            ({"timeout": "soon"}, "timeout", "DURATION_INVALID"),
            ({"timeout": "25h"}, "timeout", "DURATION_OUT_OF_BOUNDS"),
            ({"timeout": "0s"}, "timeout", "DURATION_OUT_OF_BOUNDS"),
            ({"retry": "{max_attempts: 0}"}, "retry.max_attempts", "RETRY_OUT_OF_BOUNDS"),
            ({"retry": "{max_attempts: 101}"}, "retry.max_attempts", "RETRY_OUT_OF_BOUNDS"),
            ({"retry": "{backoff: 0.5}"}, "retry.backoff", "RETRY_OUT_OF_BOUNDS"),
            ({"retry": "{jitter: 1.1}"}, "retry.jitter", "RETRY_OUT_OF_BOUNDS"),
            ({"retry": "{initial_interval: x}"}, "retry.initial_interval", "DURATION_INVALID"),
            ({"retry": "{max_interval: 31d}"}, "retry.max_interval", "DURATION_OUT_OF_BOUNDS"),
        ],
    )
    def test_out_of_bounds(self, fields: dict[str, str], field: str, reason: str) -> None:
        assert faults(action(**fields)) == [("call", field, reason)]


class TestCode:
    @pytest.mark.parametrize(
        "source",
        [
            "export const code = () => 1",
            "export async function code(i) {}",
            "export  let code=1",
            "const code = 1; export { code }",
            "const main = 1; export { main as code };",
        ],
    )
    def test_code_is_exported(self, source: str) -> None:
        assert faults(f"- {{id: c, kind: code, source: {source!r}}}") == []

    @pytest.mark.parametrize("source", ["", "const code = 1", "export const codes = 1", "export default 1"])
    def test_code_is_not_exported(self, source: str) -> None:
        assert faults(f"- {{id: c, kind: code, source: {source!r}}}") == [("c", "source", "CODE_NOT_EXPORTED")]

    def test_a_source_that_is_too_big(self) -> None:
        source = "export const code = 1 //" + "x" * 270_000
        assert faults(f"- {{id: c, kind: code, source: '{source}'}}") == [("c", "source", "SOURCE_TOO_BIG")]


def router(*branches: str) -> str:
    return "- id: r\n  kind: router\n  branches:\n" + "\n".join(f"    - {branch}" for branch in branches)


def condition(text: str) -> str:
    return router(f"{{name: A, when: [[{{left: '{{{{trigger.a}}}}', op: exists}}], [{text}]]}}")


class TestRouter:
    def test_branches(self) -> None:
        good = "{name: A, when: [[{left: '{{trigger.a}}', op: exists}]]}"
        assert faults(router(good)) == []
        assert faults(router(good, "{name: B, fallback: true}")) == []
        assert faults(router("{name: B, fallback: true}")) == [("r", "branches", "BRANCH_MISSING")]
        assert faults("- {id: r, kind: router, branches: []}") == [("r", "branches", "BRANCH_MISSING")]
        assert faults(router(good, "{name: B, fallback: true}", "{name: C, fallback: true}")) == [
            ("r", "branches", "FALLBACK_TWICE")
        ]
        assert faults(router(good, "{name: ''}")) == [
            ("r", "branches[1].name", "NAME_MISSING"),
            ("r", "branches[1].when", "CONDITION_MISSING"),
        ]
        assert faults(router("{name: A, when: [[]]}")) == [("r", "branches[0].when[0]", "CONDITION_MISSING")]
        assert faults(router(good, good.replace("name: A", "name: B, fallback: true"))) == [
            ("r", "branches[1].when", "FALLBACK_WITH_CONDITION")
        ]

    @pytest.mark.parametrize(
        ("text", "field", "reason"),
        [
            ("{left: a, op: same, right: b}", "op", "OPERATOR_UNKNOWN"),
            ("{left: a}", "op", "OPERATOR_UNKNOWN"),
            ("{left: a, op: equals}", "right", "OPERAND_MISSING"),
            ("{op: exists}", "left", "OPERAND_MISSING"),
            ("{left: a, op: exists, right: b}", "right", "OPERAND_UNEXPECTED"),
            ("{left: '{{trigger.a}}', op: greater_than, right: many}", "right", "OPERAND_WRONG_TYPE"),
            ("{left: '{{trigger.a}}', op: date_before, right: soon}", "right", "OPERAND_WRONG_TYPE"),
            ("{left: '{{trigger.a}}', op: matches, right: '(a'}", "right", "OPERAND_WRONG_TYPE"),
            ("{left: abc, op: list_contains, right: a}", "left", "OPERAND_WRONG_TYPE"),
            ("{left: [a], op: contains, right: a}", "left", "OPERAND_WRONG_TYPE"),
            ("{expression: 'a > 1'}", "expression", "EXPRESSION_NEEDED"),
            ("{expression: '{{ 1 }}', op: exists}", "expression", "CONDITION_AMBIGUOUS"),
        ],
    )
    def test_conditions(self, text: str, field: str, reason: str) -> None:
        assert faults(condition(text)) == [("r", f"branches[0].when[1][0].{field}", reason)]

    @pytest.mark.parametrize(
        "text",
        [
            "{left: '{{trigger.a}}', op: greater_than, right: '12.5'}",
            "{left: '{{trigger.a}}', op: date_after, right: 2026-01-31}",
            "{left: '{{trigger.a}}', op: matches, right: '^a+$', case_sensitive: false}",
            "{expression: '{{ trigger.a > 1 }}'}",
        ],
    )
    def test_good_conditions(self, text: str) -> None:
        assert faults(condition(text)) == []


class TestLoopAndRespond:
    @pytest.mark.parametrize("items", ["[1, 2]", "'x {{trigger.a}}'", "text", "'{{trigger.a}}{{trigger.b}}'", "null"])
    def test_items_is_one_expression(self, items: str) -> None:
        assert faults(f"- {{id: l, kind: loop, items: {items}}}") == [("l", "items", "EXPRESSION_NEEDED")]

    @pytest.mark.parametrize(("concurrency", "good"), [(0, False), (1, True), (100, True), (101, False)])
    def test_concurrency_has_bounds(self, concurrency: int, good: bool) -> None:
        found = faults(f"- {{id: l, kind: loop, items: '{{{{trigger.a}}}}', concurrency: {concurrency}}}")
        assert found == ([] if good else [("l", "concurrency", "CONCURRENCY_OUT_OF_BOUNDS")])

    def test_an_answer_needs_somebody_who_waits(self) -> None:
        head = "name: x\ntriggers:\n  - {id: s, piece: schedule, event: cron}\n"
        assert faults("- {id: answer, kind: respond}", head) == [("answer", "", "RESPOND_WITHOUT_WEBHOOK")]
        assert faults("- {id: answer, kind: respond}") == []

    @pytest.mark.parametrize("status", ["99", "600", "true", "'200'", "null", "'x{{trigger.a}}'"])
    def test_a_status_that_is_none(self, status: str) -> None:
        assert faults(f"- {{id: a, kind: respond, status: {status}}}") == [("a", "status", "STATUS_INVALID")]


SCOPED = """
- {id: first, kind: code, source: 'export const code = 1', input: {a: %(first)s}}
- id: size
  kind: router
  branches:
    - name: A
      when: [[{left: %(left)s, op: exists}]]
      steps:
        - {id: in_a, kind: code, source: 'export const code = 1', input: {a: %(in_a)s}}
    - name: B
      fallback: true
      steps:
        - {id: in_b, kind: code, source: 'export const code = 1', input: {a: %(in_b)s}}
- id: each
  kind: loop
  items: %(items)s
  collect: %(collect)s
  steps:
    - {id: inner, kind: code, source: 'export const code = 1', input: {a: %(inner)s}}
- {id: last, kind: code, source: 'export const code = 1', input: {a: %(last)s}}
"""
PLACES = {"first": "input.a", "in_a": "input.a", "in_b": "input.a", "inner": "input.a", "last": "input.a",
          "left": "branches[0].when[0][0].left", "items": "items", "collect": "collect"}  # fmt: skip


def scoped(place: str, expression: str) -> list[tuple[str, str, str]]:
    values = dict.fromkeys(PLACES, "'{{trigger.a}}'") | {place: f'"{{{{{expression}}}}}"'}
    return faults(SCOPED % values)


class TestScope:
    @pytest.mark.parametrize(
        ("place", "expression"),
        [
            ("first", "variables.a"), ("first", "run.id"), ("first", "connections.shop.secret"), ("in_a", "first.x"),
            ("left", "first.x"), ("items", "in_a.x"), ("inner", "each.item.sku"), ("inner", "each.index"),
            ("collect", "inner.x"), ("collect", "each.inner.x"), ("last", "in_a.x"), ("last", "in_b.x"),
            ("last", "each.count"), ("last", " first.x + size + each.items.length "),
            ("last", " [1].map(inner => inner) "), ("last", " {inner: 1} "), ("last", " unknown() "),
            ("last", " first.inner + 1 "),
        ],
    )  # fmt: skip
    def test_what_can_be_referred_to(self, place: str, expression: str) -> None:
        assert scoped(place, expression) == []

    @pytest.mark.parametrize(
        ("place", "expression"),
        [
            ("first", "first.x"), ("first", "last.x"), ("first", "hook.body"), ("first", "nowhere"), ("left", "in_a.x"),
            ("left", "size"), ("in_b", "in_a.x"), ("items", "each.item"), ("items", "inner.x"), ("last", "inner.x"),
            ("last", " inner.x + 1 "), ("in_b", " f(in_a) "), ("first", "item.sku"),
        ],
    )  # fmt: skip
    def test_what_cannot(self, place: str, expression: str) -> None:
        owner = {"left": "size", "items": "each", "collect": "each"}.get(place, place)
        assert scoped(place, expression) == [(owner, PLACES[place], "NOT_IN_SCOPE")]

    def test_messages_say_what_to_do(self) -> None:
        def message(place: str, expression: str) -> str:
            values = dict.fromkeys(PLACES, "'{{trigger.a}}'") | {place: f'"{{{{{expression}}}}}"'}
            return validate(flow_of(SCOPED % values), PIECES)[0].message

        assert "did you mean `first`?" in message("last", "frist.a")
        assert "inside the loop `each`" in message("last", "inner.a")
        assert "has not run" in message("first", "last.a")
        assert "is a trigger" in message("first", "hook.a")

    def test_a_triggers_input_knows_variables_and_connections_alone(self) -> None:
        inputs = "{a: '{{connections.shop.secret}}', b: '{{variables.x}}', c: '{{trigger.body}}', d: '{{call.x}}'}"
        head = f"name: x\ntriggers:\n  - {{id: hook, piece: webhook, event: catch, input: {inputs}}}\n"
        assert faults(CALL, head) == [("hook", "input.c", "NOT_IN_SCOPE"), ("hook", "input.d", "NOT_IN_SCOPE")]

    def test_broken_expressions_are_all_named(self) -> None:
        given_input = "{url: '{{}}', body: ['{{a', {x: '{{ connections.a + 1 }}'}, '{{connections}}']}"
        assert faults(action(input=given_input)) == [
            ("call", "input.url", "EXPRESSION_INVALID"),
            ("call", "input.body[0]", "EXPRESSION_INVALID"),
            ("call", "input.body[1].x", "CONNECTION_IN_EXPRESSION"),
            ("call", "input.body[2]", "CONNECTION_IN_EXPRESSION"),
        ]


class TestSources:
    def test_what_only_the_jail_can_check_is_listed(self) -> None:
        flow = flow_of("""
            - {id: call, kind: action, piece: http, action: request, input: {url: '{{trigger.a}} {{ f(1) }} {{ g() }}'}}
            - {id: c, kind: code, language: javascript, source: 'export const code = 1', input: {a: ['{{ h() }}']}}
        """)
        assert sources(flow) == [
            SourceRef(step_id="call", field="input.url", kind="expression", text="f(1)"),
            SourceRef(step_id="call", field="input.url", kind="expression", text="g()"),
            SourceRef(step_id="c", field="input.a[0]", kind="expression", text="h()"),
            SourceRef(step_id="c", field="source", kind="javascript", text="export const code = 1"),
        ]


@given(flow=flows)
def test_any_document_can_be_judged(flow: Flow) -> None:
    for fault in validate(flow, PIECES):
        assert fault.message
        assert fault.reason == fault.reason.upper()
    sources(flow)


def test_many_unknown_names_are_all_judged() -> None:
    call = flow_of(CALL).steps[0]
    assert isinstance(call, ActionStep)
    names: dict[str, Json] = {f"k{n}": f"{{{{unknown_{n}}}}}" for n in range(5_000)}
    found = validate(replace(flow_of("[]"), steps=[replace(call, input=names)]), {})
    assert [fault.reason for fault in found].count("NOT_IN_SCOPE") == 5_000


def test_a_catalogue_of_another_shape_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        read_catalogue([b'{"name": "x"}'])
    assert Trigger(id="a", piece="p", event="e").version == ""
