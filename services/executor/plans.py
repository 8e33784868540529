"""Compiled versions, by id. A published version never changes, so nothing here grows old; only the least used leave.

Decides: that missing versions of a batch are asked for together, once, and what is said of a run that cannot run.
Leaves: compiling to engine/plan.py, documents to flows.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import structlog
from millrace.flows.v1 import version_pb2 as pb

from chassis.errors import DeadlineExceeded, Internal, TooLarge, Unavailable
from flowlang.model import Flow
from services.executor.engine.journal import AnyEntry, RunError, RunFinished, encode_chunk
from services.executor.engine.plan import Plan
from services.executor.store import RunEnd, RunIdentity, RunStatus, RunWrite

if TYPE_CHECKING:  # the generated module has this class for type checkers alone
    from millrace.flows.v1.version_pb2_grpc import VersionServiceAsyncStub

KEPT = 2_000
AT_ONCE = 10
"""Documents asked for at once; each has 1 MiB at most, a message 16."""
AWAY_RETRY_S = 0.5

log = structlog.get_logger()


class Plans:
    """The plans of published versions and frozen drafts. `compile` makes one from a document."""

    def __init__(self, stub: VersionServiceAsyncStub, compile_plan: Callable[[Flow, str], Plan]) -> None:
        self._stub = stub
        self._compile = compile_plan
        self._plans: OrderedDict[str, Plan] = OrderedDict()
        self._refused: OrderedDict[str, str] = OrderedDict()
        """Why the versions last refused cannot be compiled."""

    async def get(self, version_ids: Iterable[str]) -> Mapping[str, Plan]:
        """The plans of these versions.

        One that does not exist, or cannot be compiled, is left out. Waits while flows is away.
        """
        wanted = set(version_ids)
        # Taken hold of before anything is awaited: others may make room here meanwhile.
        found = {version_id: plan for version_id in wanted if (plan := self._plans.get(version_id)) is not None}
        missing = list(wanted - found.keys())
        for start in range(0, len(missing), AT_ONCE):
            found |= await self._fetch(missing[start : start + AT_ONCE])
        for version_id, plan in found.items():
            self._plans[version_id] = plan
            self._plans.move_to_end(version_id)
        while len(self._plans) > KEPT:
            self._plans.popitem(last=False)
        return found

    def why_not(self, version_id: str) -> str:
        """Why a version has no plan, for the person who reads the run."""
        reason = self._refused.get(version_id)
        if reason is None:
            return f"Version {version_id} is not there any more. Send the event again to the version that is live now."
        return f"Version {version_id} cannot be run by this release: {reason}"

    async def _fetch(self, version_ids: list[str]) -> dict[str, Plan]:
        request = pb.BatchGetVersionsRequest(version_ids=version_ids)
        while True:
            try:
                response = await self._stub.BatchGetVersions(request)
                break
            except TooLarge as error:  # large documents: as many as fit in a message
                if len(version_ids) == 1:
                    self._refuse(version_ids[0], error.message)
                    return {}
                middle = len(version_ids) // 2
                return await self._fetch(version_ids[:middle]) | await self._fetch(version_ids[middle:])
            except (Unavailable, DeadlineExceeded, Internal) as error:  # a fault of flows is no fault of these runs
                log.warning("flows_away", reason=error.message)
                await asyncio.sleep(AWAY_RETRY_S)
        found: dict[str, Plan] = {}
        for version in response.versions:
            try:
                found[version.id] = self._compile(msgspec.json.decode(version.document, type=Flow), version.id)
            except ValueError as error:  # also what msgspec and compile_plan raise
                self._refuse(version.id, str(error))
        return found

    def _refuse(self, version_id: str, reason: str) -> None:
        log.error("version_not_runnable", version_id=version_id, reason=reason)
        self._refused[version_id] = reason
        while len(self._refused) > KEPT:
            self._refused.popitem(last=False)


class Unrunnable(NamedTuple):
    """Why a run cannot run at all."""

    kind: str
    message: str


BROKEN = Unrunnable("INTERNAL_ERROR", "Millrace failed when it took this run in hand; its log has the details.")


def unrunnable(
    identity: RunIdentity, started: list[AnyEntry], chunk_no: int, now_ms: int, reason: Unrunnable
) -> RunWrite:
    """The write that ends a run which cannot run: its version or its payload is gone, or cannot be read.

    `started`: what its journal must still say before.
    """
    error = RunError("", (), 0, reason.kind, reason.message)
    entries = [*started, RunFinished("internal_error", error, now_ms)]
    end = RunEnd(RunStatus.INTERNAL_ERROR, now_ms, 0, msgspec.msgpack.encode(error))
    return RunWrite(identity, chunk_no == 0, chunk_no, encode_chunk(entries), RunStatus.INTERNAL_ERROR, now_ms, end)
