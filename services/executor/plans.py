"""Compiled versions, by id. A published version never changes, so nothing here grows old; only the least used leave.

Decides: that missing versions of a batch are asked for together, once.
Leaves: compiling to engine/plan.py, documents to flows.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec
import structlog
from millrace.flows.v1 import version_pb2 as pb

from chassis.errors import DeadlineExceeded, Unavailable
from flowlang.model import Flow
from services.executor.engine.journal import AnyEntry, RunError, RunFinished, encode_chunk
from services.executor.engine.plan import Plan
from services.executor.store import RunEnd, RunIdentity, RunStatus, RunWrite

if TYPE_CHECKING:  # the generated module has this class for type checkers alone
    from millrace.flows.v1.version_pb2_grpc import VersionServiceAsyncStub

KEPT = 2_000
AT_ONCE = 200
AWAY_RETRY_S = 0.5

log = structlog.get_logger()


class Plans:
    """The plans of published versions and frozen drafts. `compile` makes one from a document."""

    def __init__(self, stub: VersionServiceAsyncStub, compile_plan: Callable[[Flow, str], Plan]) -> None:
        self._stub = stub
        self._compile = compile_plan
        self._plans: OrderedDict[str, Plan] = OrderedDict()

    async def get(self, version_ids: Iterable[str]) -> Mapping[str, Plan]:
        """The plans of these versions.

        One that does not exist, or cannot be compiled, is left out. Waits while flows is away.
        """
        wanted = set(version_ids)
        missing = [version_id for version_id in wanted if version_id not in self._plans]
        for start in range(0, len(missing), AT_ONCE):
            await self._fetch(missing[start : start + AT_ONCE])
        found = {version_id: plan for version_id in wanted if (plan := self._plans.get(version_id)) is not None}
        for version_id in found:
            self._plans.move_to_end(version_id)
        while len(self._plans) > KEPT:
            self._plans.popitem(last=False)
        return found

    async def _fetch(self, version_ids: list[str]) -> None:
        request = pb.BatchGetVersionsRequest(version_ids=version_ids)
        while True:
            try:
                response = await self._stub.BatchGetVersions(request)
                break
            except (Unavailable, DeadlineExceeded) as error:
                log.warning("flows_away", reason=error.message)
                await asyncio.sleep(AWAY_RETRY_S)
        for version in response.versions:
            try:
                self._plans[version.id] = self._compile(msgspec.json.decode(version.document, type=Flow), version.id)
            except (msgspec.DecodeError, ValueError) as error:
                log.error("version_not_runnable", version_id=version.id, reason=str(error))  # noqa: TRY400 - it is data


def unrunnable(identity: RunIdentity, started: list[AnyEntry], chunk_no: int, now_ms: int) -> RunWrite:
    """The write that ends a run whose version is gone or cannot be compiled.

    `started`: what its journal must still say before.
    """
    message = f"Version {identity.version_id} of flow {identity.flow_id} is not there any more or cannot be run by this release."
    error = RunError("", (), 0, "VERSION_NOT_RUNNABLE", message)
    entries = [*started, RunFinished("internal_error", error, now_ms)]
    end = RunEnd(RunStatus.INTERNAL_ERROR, now_ms, 0, msgspec.msgpack.encode(error))
    return RunWrite(identity, chunk_no == 0, chunk_no, encode_chunk(entries), RunStatus.INTERNAL_ERROR, now_ms, end)
