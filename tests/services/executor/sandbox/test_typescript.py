# ruff: noqa: E501 - a program under test stays on one line
"""TypeScript becomes JavaScript by losing its types and nothing else."""

from __future__ import annotations

import pytest

from services.executor.sandbox import CodeThrew
from tests.services.executor.sandbox.conftest import Workbench

pytestmark = pytest.mark.asyncio(loop_scope="module")

CASES = {
    "annotations": ("const f = (x: number, y?: string, ...z: any[]): string => `${x}${y}${z.length}`", "f(1, 'a', 2)", "1a1"),
    "interfaces": ("interface A { b: string; c(): void }\nconst a: A = { b: 'x', c() {} }", "a.b", "x"),
    "aliases": ("type Id<T> = T extends string ? { [K in keyof T]?: T[K] } : never\nconst n = 1", "n", 1),
    "assertions": ("const a = ({} as any as { b?: { c: number } })", "a!.b?.c ?? 'none'", "none"),
    "angle assertions": ("const a = <number><unknown>'5'", "a", "5"),
    "const assertions": ("const a = ['x', 'y'] as const", "a.length", 2),
    "satisfies": ("const a = { b: 1 } satisfies Record<string, number>", "a.b", 1),
    "generics": ("function first<T extends object, U = T>(x: T[]): T | undefined { return x[0] }", "first<{ a: number }>([{ a: 1 }])?.a", 1),
    "generic arrows": ("const id = <T,>(x: T): T => x\nconst id2 = async <\n  T,\n>(x: T) => x", "id(id2) === id2", True),
    "overloads": ("function f(a: string): string\nfunction f(a: number): number\nfunction f(a: any): any { return a }", "f(3)", 3),
    "this parameters": ("function f(this: { n: number }, m: number) { return this.n + m }", "f.call({ n: 1 }, 2)", 3),
    "only this": ("function f(this: void): number { return 4 }", "f()", 4),
    "classes": (
        "abstract class A<T> { private readonly x: number = 1; protected abstract y(): void; static z?: string; w!: T\n"
        "  declare v: string; [key: string]: unknown; public get two(): number { return 2 } constructor(a?: T) {} m?(): void }\n"
        "class B extends A<string> implements Iface { override y() {} }\ninterface Iface {}",
        "[new B().two, Object.keys(new B())]",
        [2, ["x", "w"]],
    ),
    "predicates": ("const s = (x: unknown): x is string => typeof x === 'string'\nfunction a(x: any): asserts x is 1 {}", "s('')", True),
    "return types of several lines": ("const f = (\n  a: number\n): {\n  b: number\n} => ({ b: a })", "f(5).b", 5),
    "declarations": ("declare const x: number\ndeclare function y(): void\ndeclare module 'z' { }\nconst a = 1", "a", 1),
    "exported types": ("export type A = 1\nexport interface B {}\nexport type { A as C }\nconst a = 2", "a", 2),
    "type imports": ("import type { A } from './a'\nconst a = 2", "a", 2),
    "definite and union": ("let a!: string | number | null\na = 4", "a", 4),
    "catch": ("let a: string\ntry { throw 'x' } catch (e: unknown) { a = e as string }", "a", "x"),
    "no line grows onto the next": ("let a = 1\nconst c = a as number\n(() => { a = 7 })()", "[a, c]", [7, 1]),
    "no member grows onto the next": ("class A {\n  a = 1\n  private ['b'] = 2\n  readonly ['c'] = 3\n}", "Object.keys(new A())", ["a", "b", "c"]),
    "a vanished statement ends": ("const a = 1\ntype B = string\n;[2].map((x) => x)", "a", 1),
    "text that looks like types": ("const a = 'x as string: number'; const b = `${a}!`; const c = 1 < 2", "[b, c]", ["x as string: number!", True]),
    "comparisons": ("const a = 1, b = 2, c = 3", "a < b && c > (b)", True),
    "optional calls": ("const a: { f?: <T>(x: T) => T } = {}", "a.f?.<number>(1) ?? 'none'", "none"),
    "wide characters": ("const a: /* 😀é */ string = 'é😀' /* 😀 */ as string", "a", "é😀"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
async def test_types_vanish_and_meaning_stays(bench: Workbench, name: str) -> None:
    declarations, expression, expected = CASES[name]
    source = f"{declarations}\nexport const code = async (inputs: unknown): Promise<unknown> => {expression}\n"
    assert await bench.run(source, language="typescript") == expected


@pytest.mark.parametrize(
    ("source", "message", "line", "column"),
    [
        ("const a = 1\nenum Color { Red }", "Enums are not supported", 2, 1),
        ("const enum E { A }", "Enums are not supported", 1, 1),
        ("namespace N { export const a = 1 }", "Namespaces are not supported", 1, 1),
        ("class A {\n  constructor(private readonly x: number) {}\n}", "Parameter properties", 2, 15),
        ("@sealed\nclass A {}", "Decorators", 1, 1),
        ("import a = require('a')", "Imports are not available", 1, 1),
        ("import { a } from 'a'", "Imports are not available", 1, 1),
        ("export = 5", "not supported", 1, 1),
        ("const f = (x: ) => 1", "Syntax error", 1, 13),
        ("const 😀: number = 1", "SyntaxError", 1, 7),
    ],
)
async def test_what_is_no_types_only_is_refused_with_its_place(
    bench: Workbench, source: str, message: str, line: int, column: int
) -> None:
    whole = f"{source}\nexport const code = () => 1"
    found = (await bench.sandbox.check([("typescript", whole)]))[0]
    assert found is not None
    assert message in found.message
    assert (found.line, found.column) == (line, column)


async def test_places_are_those_of_the_typed_source(bench: Workbench) -> None:
    source = "interface A { b: string }\nexport const code = (x: A /* 😀 */, y: number): string => x!.b.c.d as string"
    with pytest.raises(CodeThrew) as raised:
        await bench.run(source, {}, language="typescript")
    assert (raised.value.line, raised.value.column) == (2, source.split("\n")[1].index(".c") + 2 + 1)


async def test_a_javascript_error_in_typescript_is_found(bench: Workbench) -> None:
    found = (await bench.sandbox.check([("typescript", "let a: number\nlet a: string\nexport const code = () => a")]))[
        0
    ]
    assert found is not None
    assert (found.message, found.line, found.column) == ("SyntaxError: Identifier 'a' has already been declared", 2, 5)
