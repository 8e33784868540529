"""Finds the faults of a draft: those of the document itself, and those that only V8 and the installed pieces can tell.

Decides: that the catalogue is asked for once a minute and an older one serves while the executor is away; that code and
expressions are parsed in the executor's jail, each text once; how many faults are kept, and how long each may be.
Leaves: what is a fault to flowlang/validate.py, parsing to the executor.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeVar

import msgspec
from millrace.executor.v1 import piece_pb2 as pb

from chassis.clock import Clock
from chassis.errors import Unavailable
from flowlang.catalogue import PieceInfo, read_catalogue
from flowlang.documents import write_json
from flowlang.faults import Fault
from flowlang.model import ActionStep, Flow, Step, Trigger
from flowlang.structure import map_steps
from flowlang.validate import SOURCE_LIMIT_BYTES, SourceRef, sources, validate
from services.flows.draft_store import NewDraft

if TYPE_CHECKING:  # the generated module has this class for type checkers alone
    from millrace.executor.v1.piece_pb2_grpc import PieceServiceAsyncStub

Part = TypeVar("Part", Trigger, ActionStep)
CATALOGUE_S = 60.0
MAX_FAULTS = 500
"""A draft keeps the first so many; whoever has mended them sees the rest."""
MAX_FAULT_CHARS = 1000
"""A message or a field may quote what an author wrote, which may be long."""
MAX_NAME_CHARS = 200
_SOURCES_AT_ONCE = 500
_PARSED_KEPT = 8192
_INLINE_BYTES = 32 * 1024
"""Above this a document is checked in a thread: the process answers webhooks, too. Measured: 24 KB take 3 ms, 700 KB
100 ms."""
_KINDS = {
    "expression": pb.SOURCE_KIND_EXPRESSION,
    "javascript": pb.SOURCE_KIND_JAVASCRIPT,
    "typescript": pb.SOURCE_KIND_TYPESCRIPT,
}


@dataclass(frozen=True, slots=True)
class Checked:
    """A document, what was found in it, and the pieces it was checked against."""

    flow: Flow
    document: bytes
    faults: Sequence[Fault]
    pieces: Mapping[str, PieceInfo]

    @property
    def valid(self) -> bool:
        """Whether it can be published."""
        return not self.faults

    def draft(self) -> NewDraft:
        """As it is stored."""
        name = self.flow.name[:MAX_NAME_CHARS]  # a longer one is a fault, and stays in the document
        return NewDraft(name, self.document, msgspec.json.encode(self.faults), self.valid)

    def pinned(self) -> bytes:
        """The document with the exact version of each piece that it will run with. Only of a valid one."""

        def pin(part: Part) -> Part:
            return part if part.version else msgspec.structs.replace(part, version=self.pieces[part.piece].version)

        def pin_step(step: Step) -> Step:
            return pin(step) if isinstance(step, ActionStep) else step

        triggers = [pin(trigger) for trigger in self.flow.triggers]
        steps = map_steps(self.flow.steps, pin_step)
        return write_json(msgspec.structs.replace(self.flow, triggers=triggers, steps=steps))


class Checks:
    """Checks documents against the executor that will run them."""

    def __init__(self, stub: PieceServiceAsyncStub, clock: Clock) -> None:
        self._stub = stub
        self._clock = clock
        self._catalogue: Mapping[str, PieceInfo] | None = None
        self._fetched_at = 0.0
        self._parsed: OrderedDict[bytes, str] = OrderedDict()
        """What is wrong with a text, by its digest; empty when nothing is."""

    async def check(self, flow: Flow) -> Checked:
        """Look at a document. Raises Unavailable while the executor is away and must be asked."""
        pieces = await self._pieces()
        document = write_json(flow)
        if len(document) > _INLINE_BYTES:
            faults, found = await asyncio.to_thread(_examined, flow, pieces)
        else:
            faults, found = _examined(flow, pieces)
        if len(faults) < MAX_FAULTS:
            faults += await self._unparsable(found)
        return Checked(flow, document, _bounded(faults), pieces)

    async def _pieces(self) -> Mapping[str, PieceInfo]:
        now = self._clock.monotonic()
        if self._catalogue is not None and now - self._fetched_at < CATALOGUE_S:
            return self._catalogue
        try:
            response = await self._stub.ListPieces(pb.ListPiecesRequest())
        except Unavailable:
            if self._catalogue is None:
                raise
            return self._catalogue
        self._catalogue, self._fetched_at = read_catalogue(response.pieces), now
        return self._catalogue

    async def _unparsable(self, found: Sequence[SourceRef]) -> list[Fault]:
        """Faults of the texts that do not parse. Texts that were parsed before are not sent again."""
        digests = [_digest(source) for source in found]
        known = {digest: self._parsed[digest] for digest in digests if digest in self._parsed}
        new = {digest: source for digest, source in zip(digests, found, strict=True) if digest not in known}
        keys = list(new)
        for start in range(0, len(keys), _SOURCES_AT_ONCE):
            part = keys[start : start + _SOURCES_AT_ONCE]
            known.update(zip(part, await self._parse([new[key] for key in part]), strict=True))
        for digest in digests:
            self._parsed[digest] = known[digest]
            self._parsed.move_to_end(digest)
        while len(self._parsed) > _PARSED_KEPT:
            self._parsed.popitem(last=False)
        return [
            Fault(step_id=source.step_id, field=source.field, message=known[digest], reason="SYNTAX_ERROR")
            for digest, source in zip(digests, found, strict=True)
            if known[digest]
        ]

    async def _parse(self, found: Sequence[SourceRef]) -> list[str]:
        asked = [pb.Source(kind=_KINDS[source.kind], text=source.text) for source in found]
        response = await self._stub.CheckSources(pb.CheckSourcesRequest(sources=asked))
        return [_sentence(source, check) for source, check in zip(found, response.checks, strict=True)]


def _examined(flow: Flow, pieces: Mapping[str, PieceInfo]) -> tuple[list[Fault], list[SourceRef]]:
    """Faults of the document itself, and the texts that the jail must see: not those that are refused as too big."""
    found = [source for source in sources(flow) if len(source.text) <= SOURCE_LIMIT_BYTES]
    return validate(flow, pieces), found


def _bounded(faults: Sequence[Fault]) -> list[Fault]:
    kept = [
        Fault(
            step_id=_short(fault.step_id, MAX_NAME_CHARS),
            field=_short(fault.field, MAX_FAULT_CHARS),
            message=_short(fault.message, MAX_FAULT_CHARS),
            reason=fault.reason,
        )
        for fault in faults[:MAX_FAULTS]
    ]
    if len(faults) > MAX_FAULTS:
        message = f"There are {len(faults)} faults; the first {MAX_FAULTS - 1} are named. Mend them to see the rest."
        kept[-1] = Fault(message=message, reason="TOO_MANY_FAULTS")
    return kept


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _digest(source: SourceRef) -> bytes:
    return blake2b(f"{source.kind}\0{source.text}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _sentence(source: SourceRef, check: pb.SourceCheck) -> str:
    if not check.message:
        return ""
    what = "expression" if source.kind == "expression" else "code"
    where = f" (line {check.line}, column {check.column})" if check.line else ""
    return f"The {what} cannot be parsed{where}: {check.message}"
