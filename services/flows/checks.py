"""Finds every fault of a draft: those of the document itself, and those that only V8 and the installed pieces can tell.

Decides: that the catalogue is asked for once a minute, and that code and expressions are parsed in the executor's jail.
Leaves: what is a fault to flowlang/validate.py, parsing to the executor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from chassis.clock import Clock
from flowlang.catalogue import PieceInfo, read_catalogue
from flowlang.model import ActionStep, Flow, Step, Trigger
from flowlang.validate import Fault, SourceRef, sources, validate
from flowlang.walk import map_steps
from millrace.executor.v1 import piece_pb2 as pb
from millrace.executor.v1.piece_pb2_grpc import PieceServiceAsyncStub

Part = TypeVar("Part", Trigger, ActionStep)
CATALOGUE_S = 60.0
_KINDS = {
    "expression": pb.SOURCE_KIND_EXPRESSION,
    "javascript": pb.SOURCE_KIND_JAVASCRIPT,
    "typescript": pb.SOURCE_KIND_TYPESCRIPT,
}


@dataclass(frozen=True, slots=True)
class Checked:
    """What a draft's check found."""

    faults: tuple[Fault, ...]

    @property
    def valid(self) -> bool:
        """Whether it can be published."""
        return not self.faults

    def as_json(self) -> bytes:
        """The faults as they are stored beside the draft."""
        return msgspec.json.encode(self.faults)


class Checks:
    """Checks drafts against the executor that will run them."""

    def __init__(self, stub: PieceServiceAsyncStub, clock: Clock) -> None:
        self._stub = stub
        self._clock = clock
        self._catalogue: Mapping[str, PieceInfo] = {}
        self._fetched_at = -CATALOGUE_S

    async def check(self, flow: Flow) -> Checked:
        """Every fault of a document. Raises Unavailable when the executor is away."""
        faults = validate(flow, await self._pieces())
        return Checked((*faults, *await self._parse(sources(flow))))

    async def pin(self, flow: Flow) -> Flow:
        """The document with the exact version of each piece that it will run with."""
        pieces = await self._pieces()

        def pinned(part: Part) -> Part:
            return part if part.version else msgspec.structs.replace(part, version=pieces[part.piece].version)

        def pin_step(step: Step) -> Step:
            return pinned(step) if isinstance(step, ActionStep) else step

        triggers = [pinned(trigger) for trigger in flow.triggers]
        return msgspec.structs.replace(flow, triggers=triggers, steps=map_steps(flow.steps, pin_step))

    async def _pieces(self) -> Mapping[str, PieceInfo]:
        now = self._clock.monotonic()
        if now - self._fetched_at >= CATALOGUE_S:
            response = await self._stub.ListPieces(pb.ListPiecesRequest())
            self._catalogue = read_catalogue(response.pieces)
            self._fetched_at = now
        return self._catalogue

    async def _parse(self, found: Sequence[SourceRef]) -> list[Fault]:
        if not found:
            return []
        request = pb.CheckSourcesRequest(sources=[pb.Source(kind=_KINDS[source.kind], text=source.text) for source in found])
        response = await self._stub.CheckSources(request)
        return [
            Fault(step_id=source.step_id, field=source.field, message=_sentence(source, check), reason="SYNTAX_ERROR")
            for source, check in zip(found, response.checks, strict=True)
            if check.message
        ]


def _sentence(source: SourceRef, check: pb.SourceCheck) -> str:
    what = "expression" if source.kind == "expression" else "code"
    where = f" (line {check.line}, column {check.column})" if check.line else ""
    return f"The {what} cannot be parsed{where}: {check.message}"
