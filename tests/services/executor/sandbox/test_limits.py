# ruff: noqa: E501 - a program under test stays on one line
"""Limits: a call that takes too much ends with its own error, and the next call works."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from services.executor.sandbox import CodeThrew, CodeTimedOut, MemoryExceeded, OutputInvalid
from tests.services.executor.sandbox.conftest import Workbench

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENDLESS = {
    "loop": "for (;;);",
    "microtasks": "const again = () => Promise.resolve().then(again); await again()",
    "async recursion": "const again = async () => { await null; return again() }; await again()",
    "generator": "for (const x of (function* () { for (;;) yield 1 })());",
    "regular expression": "/^(a+)+$/.test('a'.repeat(40) + 'b')",
    "toJSON": "return { toJSON() { for (;;); } }",
    "getter while shown": "const e = new Error('x'); Object.defineProperty(e, 'message', { get() { for (;;); } }); throw e",
    "thenable": "return { get then() { for (;;); } }",
    "sort": "[1, 2].sort(() => { for (;;); })",
}

GREEDY = {
    "objects": "const all = []; for (;;) all.push({ a: [1, 2, 3], b: {} })",
    "array": "const all = []; for (;;) all.push(new Array(1e5).fill(1.5))",
    "strings": "const all = []; for (let i = 0;; i++) all.push(`x${i}`.padEnd(1 << 20).toUpperCase())",
    "buffers kept": "const all = []; for (;;) { const b = new Uint8Array(8 << 20); b.fill(1); all.push(b) }",
}  # fmt: skip


async def innocent(bench: Workbench) -> None:
    assert await bench.run("export const code = async (n) => n + 1", 1) == 2


@pytest.mark.parametrize("name", ENDLESS)
async def test_endless_code_is_stopped(bench: Workbench, name: str) -> None:
    with pytest.raises(CodeTimedOut) as raised:
        await bench.run(f"export const code = async () => {{ {ENDLESS[name]} }}", timeout_ms=100)
    assert raised.value.kind == "CODE_TIMED_OUT"
    await innocent(bench)


@pytest.mark.parametrize("name", GREEDY)
async def test_greedy_code_is_stopped(bench: Workbench, name: str) -> None:
    with pytest.raises((MemoryExceeded, CodeThrew)) as raised:
        await bench.run(f"export const code = () => {{ {GREEDY[name]} }}", timeout_ms=20_000)
    assert isinstance(raised.value, MemoryExceeded) or "allocation failed" in raised.value.message
    await innocent(bench)


async def test_an_array_buffer_too_many_throws_inside(bench: Workbench) -> None:
    source = "export const code = () => { try { new ArrayBuffer(1 << 30) } catch (e) { return e.name } return 'made' }"
    assert await bench.run(source) == "RangeError"


async def test_a_hundred_mebibytes_are_allowed_again_and_again(bench: Workbench) -> None:
    source = "export const code = () => new Uint8Array(100 << 20).fill(1).length"
    for _ in range(4):
        assert await bench.run(source) == 100 << 20


@pytest.mark.parametrize("size", [5 * 1024 * 1024, 60 << 20])
async def test_a_huge_output_is_refused(bench: Workbench, size: int) -> None:
    with pytest.raises(OutputInvalid, match="larger than"):
        await bench.run(f"export const code = () => 'x'.repeat({size})")
    await innocent(bench)


async def test_bytes_count_not_characters(bench: Workbench) -> None:
    with pytest.raises(OutputInvalid, match="larger than"):
        await bench.run("export const code = () => '€'.repeat(2e6)")


async def test_a_console_flood_is_cut(bench: Workbench) -> None:
    _, many = await bench.run_with_console("export const code = () => { for (let i = 0; i < 1e5; i++) console.log(i) }")
    assert len(many) == 1001
    assert many[999] == "999"
    assert "console is full" in many[1000]
    _, long = await bench.run_with_console(
        "export const code = () => { for (let i = 0; i < 99; i++) console.log('é'.repeat(1e6)) }"
    )
    assert sum(len(line.encode()) for line in long) < 65 * 1024
    assert "console is full" in long[-1]


async def test_a_jail_killed_from_elsewhere_is_replaced(bench: Workbench) -> None:
    await innocent(bench)
    for pid in bench.sandbox.jails_of("project"):
        os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(0.05)
    await innocent(bench)
