"""Expressions: all of a step's in one call, each for itself."""

from __future__ import annotations

import pytest

from services.executor.sandbox import CodeThrew, CodeTimedOut, OutputInvalid
from tests.services.executor.sandbox.conftest import Workbench

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_values_keep_their_types_and_order(bench: Workbench) -> None:
    values = await bench.evaluate(
        "order.lines.length", "`${order.id}: ${order.lines[0].sku}`", "{ a: order.id }", "[1, null, undefined]",
        order={"id": 7, "lines": [{"sku": "é😀"}]},
    )  # fmt: skip
    assert values == [1, "7: é😀", {"a": 7}, [1, None, None]]


@pytest.mark.parametrize(
    "expression",
    [
        "undefined",
        "trigger.a.b.c",
        "trigger.none",
        "skipped_step.output",
        "trigger.name.toUpperCase().length",
        "trigger.list[5].x",
        "(() => { const { a } = trigger.none; return a })()",
        "Object.keys(trigger.none)",
        "() => 1",
    ],
)
async def test_a_missing_path_is_null(bench: Workbench, expression: str) -> None:
    assert await bench.evaluate(expression, trigger={"a": {}, "list": []}) == [None]


async def test_another_throw_names_the_expression(bench: Workbench) -> None:
    with pytest.raises(CodeThrew) as raised:
        await bench.evaluate("1", "trigger.name.nope()", trigger={"name": "x"})
    assert raised.value.expression == 1
    assert raised.value.message == "Expression 2: TypeError: trigger.name.nope is not a function"
    assert raised.value.line == 1


@pytest.mark.parametrize(
    "text", ["1); (2", "1)], [(2", "const a = 1", "if (true) 1", "a +", "", "return 1", "1 // )", "`${"]
)
async def test_only_one_whole_expression_is_an_expression(bench: Workbench, text: str) -> None:
    found = (await bench.sandbox.check([("expression", text)]))[0]
    if text == "1 // )":
        assert found is None
        assert await bench.evaluate(text) == [1]
        return
    assert found is not None
    with pytest.raises(CodeThrew) as raised:
        await bench.evaluate("1", text)
    assert raised.value.expression == 1


async def test_a_syntax_error_has_its_place(bench: Workbench) -> None:
    found = await bench.sandbox.check([("expression", "a.b\n  + * c"), ("expression", "a.b"), ("expression", "a +")])
    assert [(problem.line, problem.column) if problem else None for problem in found] == [(2, 5), None, (1, 4)]


async def test_one_expression_cannot_change_what_the_next_sees(bench: Workbench) -> None:
    values = await bench.evaluate(
        "list.sort()", "list", "list.push(9)", "(list[0] = 7)", "list", "delete box.a", "box", list=[3, 1], box={"a": 1}
    )
    assert values == [[1, 3], [3, 1], 3, 7, [3, 1], True, {"a": 1}]


async def test_names_that_are_no_identifiers_do_no_harm(bench: Workbench) -> None:
    scope = {"my-step": 1, "default": 2, "class": 3, "ok": 4, "eval": 5, "": 6}
    assert await bench.evaluate("ok + 1", **scope) == [5]


async def test_a_name_spelled_with_escapes_is_found(bench: Workbench) -> None:
    assert await bench.evaluate("tr\\u0069gger.a", trigger={"a": 1}) == [1]


async def test_values_that_are_no_json_are_told(bench: Workbench) -> None:
    with pytest.raises(OutputInvalid, match="Expression 2"):
        await bench.evaluate("1", "1n")
    with pytest.raises(CodeThrew, match="cannot wait for a promise"):
        await bench.evaluate("Promise.resolve(1)")


async def test_an_endless_expression_ends_by_its_limit(bench: Workbench) -> None:
    with pytest.raises(CodeTimedOut):
        await bench.evaluate("(() => { for (;;); })()", timeout_ms=100)
    assert await bench.evaluate("1 + 1") == [2]


async def test_dates_and_library_of_the_language_are_there(bench: Workbench) -> None:
    values = await bench.evaluate("new Date(t).toISOString()", "Math.max(...n)", "JSON.stringify(n)", t=0, n=[1, 5])
    assert values == ["1970-01-01T00:00:00.000Z", 5, "[1,5]"]
