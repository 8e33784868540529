"""What `{{ … }}` means: where expressions end, what they give, and that plain paths agree with V8."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import msgspec
import pytest
import STPyV8  # type: ignore[import-untyped]  # ships no types; only text goes in and out
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlang.expressions import (
    ExpressionError,
    Resolved,
    SecretRef,
    SecretSlot,
    compile_template,
    fill_secrets,
    resolve,
)
from flowlang.model import Json
from flowlang.values import canonical_json, number_text
from tests.flowlang.strategies import json_values, keys, numbers, texts

SCOPE: dict[str, Json] = {
    "trigger": {"body": {"name": "Ada", "lines": [{"sku": "A"}, {"sku": "B"}], "ok": True, "none": None}, "n": 3}
}


def value_of(template: Json, *values: Json, scope: dict[str, Json] = SCOPE) -> Json:
    return resolve(compile_template(template), scope, values).value


class TestValues:
    def test_a_value_without_expressions_is_constant(self) -> None:
        template = compile_template({"a": [1, "text", None]})
        assert template.constant
        assert template.plain
        assert template.value == {"a": [1, "text", None]}

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("{{trigger.n}}", 3),
            ("{{ trigger.body.ok }}", True),
            ("{{trigger.body.lines}}", [{"sku": "A"}, {"sku": "B"}]),
            ("{{trigger['body'].lines[1]['sku']}}", "B"),
            ("{{trigger?.body?.lines?.[0].sku}}", "A"),
            ("{{trigger.body.none}}", None),
            ("{{trigger.nothing.at.all}}", None),
            ("{{nowhere}}", None),
        ],
    )
    def test_a_single_expression_keeps_its_type(self, text: str, value: Json) -> None:
        assert value_of(text) == value

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("Hi {{trigger.body.name}}!", "Hi Ada!"),
            ("{{trigger.n}}{{trigger.n}}", "33"),
            (" {{trigger.n}}", " 3"),
            ("is {{trigger.body.ok}}", "is true"),
            ("[{{trigger.body.none}}{{trigger.nothing}}]", "[]"),
            ("{{trigger.body.lines}}.", '[{"sku":"A"},{"sku":"B"}].'),
        ],
    )
    def test_mixed_text_becomes_text(self, text: str, value: Json) -> None:
        assert value_of(text) == value

    def test_other_expressions_are_answered_by_the_isolate_in_order(self) -> None:
        template = compile_template({"a": "{{ trigger.n + 1 }}", "b": ["{{trigger.n}} {{ f(trigger) }}"]})
        assert not template.plain
        assert template.expressions == ("trigger.n + 1", "f(trigger)")
        assert template.roots == {"trigger", "f"}
        assert resolve(template, SCOPE, [4, "x"]).value == {"a": 4, "b": ["3 x"]}

    def test_without_answers_of_the_isolate_values_are_null(self) -> None:
        assert value_of("{{ trigger.n + 1 }}") is None

    def test_keys_of_objects_are_no_templates(self) -> None:
        assert value_of({"{{trigger.n}}": "{{trigger.n}}"}) == {"{{trigger.n}}": 3}


class TestWhereAnExpressionEnds:
    @pytest.mark.parametrize(
        "expression",
        [
            "'}}'",
            '"}}"',
            "`}}`",
            "`${ {a: '}}'}.a }}}`",
            "{a: {b: 1}}",
            "(() => { return {} })()",
            "/* }} */ 1",
            "/[/}]}}/.test(trigger.n)",
            "a / b / c",
            "x.y /2 + '}}'",
            "'it\\'s }}'",
            "[{}, {}]",
            "1 // }} a comment\n",
            "`a${`b${'}}'}`}c`",
        ],
    )
    def test_braces_inside_javascript_do_not_end_it(self, expression: str) -> None:
        template = compile_template(f"before {{{{ {expression} }}}} after {{{{trigger.n}}}}")
        assert template.expressions == (expression.strip(),)
        assert resolve(template, SCOPE, ["!"]).value == "before ! after 3"

    @pytest.mark.parametrize(
        ("text", "offset"),
        [
            ("ab {{trigger.n", 14),
            ("ab {{trigger.n }", 15),
            ("ab {{ 'x }}", 6),
            ("ab {{ `x }}", 6),
            ("ab {{ (1 }}", 9),
            ("ab {{ /x }}", 6),
            ("ab {{ /* }}", 6),
            ("ab {{}}", 3),
            ("ab {{  }}", 3),
        ],
    )
    def test_what_never_ends_or_is_empty_is_refused_with_its_place(self, text: str, offset: int) -> None:
        with pytest.raises(ExpressionError) as caught:
            compile_template({"body": {"Content-Type": ["x", text]}})
        assert caught.value.field_path == 'body["Content-Type"][1]'
        assert caught.value.offset == offset
        assert caught.value.message.endswith((".", "`}}`."))

    @given(st.text(st.sampled_from(list("{}`'\"/\\$()[] a.;\n")), max_size=40))
    def test_any_text_is_either_compiled_or_refused(self, text: str) -> None:
        try:
            template = compile_template(text)
        except ExpressionError:
            return
        assert isinstance(resolve(template, {}, ()), Resolved)


class TestNames:
    @pytest.mark.parametrize(
        ("expression", "roots"),
        [
            ("order.total > trigger.limit", {"order", "trigger"}),
            ("{order: ship}", {"ship"}),
            ("{order}", {"order"}),
            ("ok ? order : ship", {"ok", "order", "ship"}),
            ("[...order].map(x => x.order)", {"order", "x"}),
            ("`${order.id} ship`", {"order"}),
            ("Math.max(1, order) + undefined", {"order"}),
            ("typeof order === 'ship'", {"order"}),
        ],
    )
    def test_all_names_that_may_be_meant_are_roots(self, expression: str, roots: set[str]) -> None:
        assert compile_template(f"{{{{ {expression} }}}}").roots == roots

    @pytest.mark.parametrize(
        "text", ["{{true}}", "{{null}}", "{{this.a}}", "{{Math.PI}}", "{{1}}", "{{a.b()}}", "{{a[b]}}"]
    )
    def test_words_of_the_language_and_calls_are_no_plain_paths(self, text: str) -> None:
        assert not compile_template(text).plain


@pytest.fixture(scope="module")
def in_v8() -> Iterator[Callable[[str, Json], Json]]:
    """Evaluates an expression as the isolate does: over parsed JSON; what throws or is undefined is null."""
    source = """(scope, expression) => { with (JSON.parse(scope)) {
        try { return JSON.stringify(eval(expression)) ?? 'null' } catch (error) { return 'null' } } }"""
    with STPyV8.JSContext() as context:
        run = context.eval(source)

        def evaluate(expression: str, scope: Json) -> Json:
            text = run(json.dumps(scope), expression)
            value: Json = json.loads(text.encode("utf-8", "surrogatepass").decode("utf-8", "replace"))
            return value

        yield evaluate


INHERITED = ("constructor", "toString")
own_keys = keys.filter(lambda key: key not in INHERITED).map(lambda key: f"[{json.dumps(key)}]")
# An inherited name ends a path here: below one V8 finds a function's properties, we find nothing (see the table).
path_keys = st.builds(
    lambda path, last: "".join(path) + last,
    st.lists(own_keys | st.sampled_from([".a", ".b", ".length", "[0]", "[1]", "?.a", "[3]"]), max_size=4),
    st.sampled_from(["", "", ".constructor", ".toString"]),
)


class TestPlainPathsAgreeWithV8:
    @settings(max_examples=400, deadline=None)
    @given(value=json_values(), path=path_keys)
    def test_any_path_into_any_value(self, in_v8: Callable[[str, Json], Json], value: Json, path: str) -> None:
        template = compile_template("{{root" + path + "}}")
        assert template.plain
        ours = resolve(template, {"root": value}).value
        theirs = in_v8("root" + path, {"root": value})
        if isinstance(theirs, str):
            theirs = "".join("\ufffd" if 0xD800 <= ord(char) < 0xE000 else char for char in theirs)
        assert canonical_json(ours) == canonical_json(theirs)

    @settings(max_examples=300, deadline=None)
    @given(number=numbers)
    def test_numbers_print_as_in_javascript(self, in_v8: Callable[[str, Json], Json], number: float) -> None:
        assert number_text(number) == in_v8("String(n)", {"n": number})

    @settings(max_examples=200, deadline=None)
    @given(value=json_values())
    def test_values_become_the_same_text(self, in_v8: Callable[[str, Json], Json], value: Json) -> None:
        script = "v == null ? '' : typeof v === 'object' ? JSON.stringify(v) : String(v)"
        text = resolve(compile_template("{{v}}{{nothing}}"), {"v": value}).value
        assert text == in_v8(script, {"v": value})

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("big", 9007199254740992),
            ("inside", {"deep": [9007199254740992]}),
            ("huge", None),
            ("zero", 0),
            ("list.length", 2),
            ("list['1']", 2),
            ("list['01']", None),
            ("list['-1']", None),
            ("object.length", None),
            ("object[7]", "seven"),
            ("null.x", None),
            ("none.x.y", None),
            ("text.length", 3),
            ("text[0]", "é"),
            ("text[1]", "\ufffd"),
            ("text.constructor", None),
            ("object.constructor", None),
            ("object.__proto__", None),
            ("object.toString", None),
            ("list.map", None),
            ("own.constructor", "mine"),
        ],
    )
    def test_the_table_of_rules(self, path: str, value: Json) -> None:
        scope: dict[str, Json] = {
            "big": 2**53 + 1,
            "inside": {"deep": [2**53 + 1]},
            "huge": 10**400,
            "zero": -0.0,
            "list": [1, 2],
            "object": {"7": "seven"},
            "none": None,
            "text": "é😀",
            "own": {"constructor": "mine"},
        }
        assert value_of("{{" + path + "}}", scope=scope) == value
        assert str(value_of("{{zero}}", scope=scope)) == "0"

    def test_resolving_changes_nothing_in_the_scope(self) -> None:
        scope: dict[str, Json] = {"a": {"b": [2**60, -0.0]}}
        value_of("{{a}} {{a.b}}", scope=scope)
        value_of("{{a}}", scope=scope)
        assert scope == {"a": {"b": [2**60, -0.0]}}
        assert isinstance(scope["a"], dict)

    def test_values_nested_deeper_than_the_stack_do_not_raise(self) -> None:
        deep: Json = 2**60
        for _ in range(5_000):
            deep = [deep]
        assert value_of("{{a}}", scope={"a": deep}) is not None
        assert isinstance(value_of("-{{a}}", scope={"a": deep}), str)


class TestSecrets:
    def test_a_secret_is_masked_and_filled_at_the_call_alone(self) -> None:
        template = compile_template(
            {"auth": ["Bearer {{connections.shop.secret}}"], "whole": "{{connections['shop']}}"}
        )
        resolved = resolve(template, SCOPE)
        assert template.connections == {"shop"}
        assert resolved.value == {"auth": ["Bearer •••"], "whole": "•••"}
        assert resolved.secrets == (
            SecretSlot(("auth", 0), ("Bearer ", SecretRef("shop", ("secret",)))),
            SecretSlot(("whole",), (SecretRef("shop"),)),
        )
        connections: dict[str, Json] = {"shop": {"secret": "s3cret"}}
        assert fill_secrets(resolved, connections) == {"auth": ["Bearer s3cret"], "whole": {"secret": "s3cret"}}
        assert resolved.value == {"auth": ["Bearer •••"], "whole": "•••"}

    def test_text_around_a_secret_is_settled_before(self) -> None:
        resolved = resolve(compile_template("{{trigger.body.name}}:{{connections.a.b}}:{{ f() }}"), SCOPE, [7])
        assert resolved.value == "Ada:•••:7"
        assert fill_secrets(resolved, {"a": {"b": "x"}}) == "Ada:x:7"

    def test_a_missing_secret_is_null_and_empty_in_text(self) -> None:
        assert fill_secrets(resolve(compile_template("{{connections.a.b}}"), {}), {}) is None
        assert fill_secrets(resolve(compile_template("x{{connections.a.b}}"), {}), {}) == "x"

    def test_slots_survive_the_journal(self) -> None:
        resolved = resolve(compile_template({"a": ["x {{connections.shop.list[0]}}"]}), {})
        assert msgspec.json.decode(msgspec.json.encode(resolved), type=Resolved) == resolved

    @given(data=texts | st.sampled_from(["{{connections.shop.secret}}", "•••", "{{connections.shop}}"]))
    def test_text_of_users_is_never_filled(self, data: str) -> None:
        template = compile_template({"a": "{{trigger.x}}", "b": "{{trigger.x}}{{connections.shop.secret}}"})
        filled = fill_secrets(resolve(template, {"trigger": {"x": data}}), {"shop": {"secret": "S"}})
        assert filled == {"a": data, "b": data + "S"}

    def test_connections_in_the_scope_are_never_read(self) -> None:
        resolved = resolve(compile_template("{{connections.shop.secret}}"), {"connections": {"shop": {"secret": "S"}}})
        assert "S" not in msgspec.json.encode(resolved).decode()

    @pytest.mark.parametrize(
        "text", ["{{connections.a + 'x'}}", "{{ f(connections) }}", "{{connections}}", "{{ [connections.a] }}"]
    )
    def test_a_connection_stands_alone(self, text: str) -> None:
        with pytest.raises(ExpressionError) as caught:
            compile_template(text)
        assert caught.value.reason == "CONNECTION_IN_EXPRESSION"

    def test_a_property_called_connections_is_no_connection(self) -> None:
        assert compile_template("{{ trigger.connections.map(f) }}").connections == frozenset()
