"""One sandbox for the tests of a module: starting jails is what takes time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest_asyncio

from services.executor.sandbox import CodeUnit, Sandbox, SandboxSettings

LIMIT_MS = 5_000


class Workbench:
    """A sandbox with short words for calling it."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox

    async def run(
        self,
        source: str,
        inputs: object = None,
        *,
        language: str = "javascript",
        project: str = "project",
        version: str = "version",
        timeout_ms: int = LIMIT_MS,
    ) -> object:
        """The step's output."""
        output, _ = await self.run_with_console(
            source, inputs, language=language, project=project, version=version, timeout_ms=timeout_ms
        )
        return output

    async def run_with_console(
        self,
        source: str,
        inputs: object = None,
        *,
        language: str = "javascript",
        project: str = "project",
        version: str = "version",
        timeout_ms: int = LIMIT_MS,
    ) -> tuple[object, tuple[str, ...]]:
        """The step's output and its console."""
        unit = CodeUnit(version, "step_1", "typescript" if language == "typescript" else "javascript", source)
        result = await self.sandbox.run_code(project, unit, json.dumps(inputs).encode(), timeout_ms)
        return json.loads(result.output), result.console

    async def evaluate(self, *expressions: str, timeout_ms: int = LIMIT_MS, **scope: object) -> list[object]:
        """The values of a step's expressions."""
        documents = {name: json.dumps(value).encode() for name, value in scope.items()}
        answer = await self.sandbox.evaluate("project", "version", expressions, documents, timeout_ms)
        values = json.loads(answer)
        assert isinstance(values, list)
        return values


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench() -> AsyncIterator[Workbench]:
    async with Sandbox(SandboxSettings(max_jails=2)) as sandbox:
        yield Workbench(sandbox)


@pytest_asyncio.fixture
async def fresh_bench() -> AsyncIterator[Workbench]:
    """For tests that look at the jails themselves."""
    async with Sandbox(SandboxSettings(max_jails=2, max_realms=3)) as sandbox:
        yield Workbench(sandbox)
