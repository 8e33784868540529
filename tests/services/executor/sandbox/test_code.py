# ruff: noqa: E501 - a program under test stays on one line
"""A code step: what its module may look like, what it gets, what it gives."""

from __future__ import annotations

import pytest

from services.executor.sandbox import CodeThrew, OutputInvalid
from tests.services.executor.sandbox.conftest import Workbench

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    "source",
    [
        "export const code = async ({ n }) => n + 1",
        "export const code = ({ n }) => n + 1;",
        "export function code({ n }) { return n + 1 }",
        "export async function code({ n }) { return (await n) + 1 }",
        "export let other = 1, code = ({ n }) => n + 1",
        "const main = ({ n }) => n + one\nconst one = 1\nexport { main as code }",
        "export default ({ n }) => n + 1",
        "export default async function ({ n }) { return n + 1 }\nconst x = 1",
        "export default function named({ n }) { return n ? named({ n: 0 }) + n : 1 }",
        "export  default class {}\nexport const code = ({ n }) => n + 1",
        "const one = await Promise.resolve(1)\nexport const code = ({ n }) => n + one",
        "// export const nothing = 1\nconst text = `\nexport const x = 2`\nexport const code = ({ n }) => n + text.length - 18",
        "export const code = ({ n }) => ({ then: (done) => done(n + 1) })",
    ],
)
async def test_every_way_to_export_the_function_works(bench: Workbench, source: str) -> None:
    assert await bench.run(source, {"n": 1}) == 2


async def test_promises_are_awaited_to_the_end(bench: Workbench) -> None:
    source = """
    export const code = async ({ items }) => {
      const doubled = await Promise.all(items.map(async (item) => { await null; return item * 2 }))
      const late = await new Promise((done) => queueMicrotask(() => done('late')))
      async function* each() { yield* doubled }
      const again = []
      for await (const item of each()) again.push(item)
      return { doubled, again, late }
    }"""
    assert await bench.run(source, {"items": [1, 2]}) == {"doubled": [2, 4], "again": [2, 4], "late": "late"}


async def test_text_of_every_plane_passes_unharmed(bench: Workbench) -> None:
    text = "aé€😀\u0000\u2028\uffff𐍈"
    assert await bench.run("export const code = (x) => [x, x.length, 'é😀𐍈', '\\ud83d\\ude00']", text) == [
        text,
        10,
        "é😀𐍈",
        "😀",
    ]


async def test_half_a_surrogate_pair_becomes_the_replacement_character(bench: Workbench) -> None:
    source = r"""export const code = (text) => {
      console.log(text.slice(0, 2), 'as written: \\ud83d')
      const raw = JSON.rawJSON('"\\uD800 \\uD83D\\uDE00"')
      return { [text.slice(0, 2)]: [text[2], text, '\\ud800', '\\\ud800"\ud83d\ude00', raw] }
    }"""
    output, console = await bench.run_with_console(source, "a😀b")
    assert output == {"a\ufffd": ["\ufffd", "a😀b", "\\ud800", '\\\ufffd"😀', "\ufffd 😀"]}
    assert console == ("a\ufffd as written: \\ud83d",)
    assert await bench.evaluate("t[1]", "t", t="a😀b") == ["\ufffd", "a😀b"]


@pytest.mark.parametrize("thrown", ["new Error('x'.repeat(1999) + '😀')", "'😀'[0]", "{ why: '😀'[1] }"])
async def test_what_is_thrown_can_be_read_wherever_it_is_cut(bench: Workbench, thrown: str) -> None:
    with pytest.raises(CodeThrew) as caught:
        await bench.run(f"export const code = () => {{ throw {thrown} }}")
    assert caught.value.message.encode()


async def test_a_value_nests_500_levels_deep_at_most(bench: Workbench) -> None:
    source = "export const code = (levels) => { let made = 1; while (levels--) made = [made]; return made }"
    assert str(await bench.run(source, 500)).count("[") == 500
    with pytest.raises(OutputInvalid, match="deeper than the 500 levels"):
        await bench.run(source, 501)


async def test_no_value_becomes_null(bench: Workbench) -> None:
    assert await bench.run("export const code = () => {}") is None


async def test_a_large_input_and_output_pass(bench: Workbench) -> None:
    text = "x" * 4_000_000
    assert await bench.run("export const code = (x) => x", text) == text


async def test_the_console_is_kept_per_call(bench: Workbench) -> None:
    source = """export const code = (n) => {
      console.log('text', n, { a: [1] }, null, undefined, 5n, () => 1)
      console.warn('careful'); console.error(new TypeError('no'))
      return n
    }"""
    for n in (1, 2):
        _, console = await bench.run_with_console(source, n)
        assert console == (
            f'text {n} {{"a":[1]}} null undefined 5n [function ]',
            "[warn] careful",
            "[error] TypeError: no",
        )


async def test_the_console_is_part_of_a_failure(bench: Workbench) -> None:
    with pytest.raises(CodeThrew) as raised:
        await bench.run("export const code = () => { console.log('before'); throw new Error('x') }")
    assert raised.value.console == ("before",)


async def test_a_throw_is_placed_in_the_authors_source(bench: Workbench) -> None:
    source = "const helper = (x) => {\n  return x.missing.deep\n}\n\nexport const code = async () => {\n  await null\n  helper({})\n}"
    with pytest.raises(CodeThrew) as raised:
        await bench.run(source)
    error = raised.value
    assert error.kind == "CODE_THREW"
    assert error.message == "TypeError: Cannot read properties of undefined (reading 'deep')"
    assert (error.line, error.column) == (2, 20)
    assert error.stack == "at helper (2:20)\nat code (7:3)"


async def test_anything_may_be_thrown(bench: Workbench) -> None:
    for thrown, message in (
        ("{ code: 5 }", '{"code":5}'),
        ("'text'", "text"),
        ("null", "null"),
        ("Symbol('s')", "Symbol(s)"),
    ):
        with pytest.raises(CodeThrew) as raised:
            await bench.run(f"export const code = () => {{ throw {thrown} }}")
        assert raised.value.message == message


@pytest.mark.parametrize(
    ("source", "message", "line", "column"),
    [
        ("export const code = () => {\n  let a = ;\n}", "Unexpected token ';'", 2, 11),
        ("export const code = (", "Unexpected end of input", 1, 22),
        ("let a\nlet a\nexport const code = 1", "Identifier 'a' has already been declared", 2, 5),
        ("import fs from 'fs'\nexport const code = 1", "Imports are not available", 1, 1),
        ("const a = 1\nexport * from 'fs'", "Imports are not available", 2, 1),
        ("const code = () => 1", "exports no function", 1, 1),
        ("export const code = () => 1\n}); (() => {", "a bracket closes more than was opened", 1, 1),
    ],
)
async def test_what_does_not_parse_says_where(
    bench: Workbench, source: str, message: str, line: int, column: int
) -> None:
    with pytest.raises(CodeThrew) as raised:
        await bench.run(source)
    assert message in raised.value.message
    assert (raised.value.line, raised.value.column) == (line, column)
    found = (await bench.sandbox.check([("javascript", source)]))[0]
    assert found is not None
    assert (message in found.message, found.line, found.column) == (True, line, column)


async def test_an_export_that_is_no_function_is_told(bench: Workbench) -> None:
    with pytest.raises(CodeThrew, match="`code` is not a function"):
        await bench.run("export const code = 5")


async def test_a_promise_that_nothing_can_settle_is_told(bench: Workbench) -> None:
    with pytest.raises(CodeThrew, match="nothing can settle"):
        await bench.run("export const code = () => new Promise(() => {})")


@pytest.mark.parametrize("name", ["setTimeout", "setInterval", "setImmediate", "fetch", "require"])
async def test_what_is_not_there_says_so(bench: Workbench, name: str) -> None:
    with pytest.raises(CodeThrew, match=f"{name} is not available in code steps"):
        await bench.run(f"export const code = () => {name}(() => 1, 10)")


async def test_imports_at_run_time_fail(bench: Workbench) -> None:
    with pytest.raises(CodeThrew):
        await bench.run("export const code = () => import('fs')")


@pytest.mark.parametrize("value", ["5n", "(() => { const a = {}; a.a = a; return a })()"])
async def test_what_is_no_json_is_told(bench: Workbench, value: str) -> None:
    with pytest.raises(OutputInvalid, match="cannot be written as JSON") as raised:
        await bench.run(f"export const code = () => {value}")
    assert raised.value.kind == "OUTPUT_INVALID"


async def test_innocent_code_is_not_hurt_by_frozen_built_ins(bench: Workbench) -> None:
    source = """
    class NotFound extends Error { constructor(m) { super(m); this.name = 'NotFound'; this.message = m + '!' } }
    function Old() {}
    Old.prototype = Object.create({})
    Old.prototype.constructor = Old
    Old.prototype.toString = () => 'old'
    export const code = () => {
      const counts = {}
      for (const word of ['constructor', 'toString', 'valueOf', 'constructor']) {
        counts[word] = (Object.hasOwn(counts, word) ? counts[word] : 0) + 1
      }
      const plain = {}; plain.hasOwnProperty = 1
      return [String(new NotFound('x')), String(new Old()), counts, plain, [3, 1, 2].toSorted(), new Map([[1, 2]]).size,
        new Intl.NumberFormat('de-DE').format(1234.5), new Date(0).toLocaleString('en-GB', { timeZone: 'Asia/Tokyo' })]
    }"""
    assert await bench.run(source) == [
        "NotFound: x!",
        "old",
        {"constructor": 2, "toString": 1, "valueOf": 1},
        {"hasOwnProperty": 1},
        [1, 2, 3],
        1,
        "1.234,5",
        "01/01/1970, 09:00:00",
    ]
