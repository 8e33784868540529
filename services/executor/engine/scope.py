"""What the expressions of a step see: documents by name, decoded only when a plain path asks.

Decides: how names are found (innermost first), what a loop's id holds inside an iteration, and that a document is
decoded at most once.
Leaves: which names an expression uses to plan.py, reading a path to flowlang.
In scope: `trigger`, `run`, `variables`, earlier steps by id; inside a loop its id (`item`, `index` and the steps of
this iteration). A step that has not run (another branch, skipped) is null. The steps of a router's branch are in the
scope that the router stands in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from flowlang.model import Json

decode: Callable[[bytes], Json] = msgspec.json.Decoder().decode
encode: Callable[[object], bytes] = msgspec.json.Encoder().encode


class Scope(Mapping[str, Json]):
    """Documents by name, over those of an outer scope. `sources` makes a document when it is first asked for."""

    __slots__ = ("_decoded", "_raw", "_sources", "outer")

    def __init__(self, outer: Scope | None, sources: dict[str, Callable[[], bytes]] | None = None) -> None:
        self.outer = outer
        self._raw: dict[str, bytes] = {}
        self._decoded: dict[str, Json] = {}
        self._sources = sources

    def put(self, name: str, document: bytes) -> None:
        """Name a document; the value of a step, or of a finished loop."""
        self._raw[name] = document

    def get(self, name: str, default: Json = None) -> Json:  # type: ignore[override]  # narrower on purpose: JSON alone
        """The decoded document of this name. Raises msgspec.DecodeError for a document that is no JSON."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope._decoded:
                return scope._decoded[name]
            if scope.holds(name):
                return scope.read(name)
            scope = scope.outer
        return default

    def document(self, name: str) -> bytes:
        """The document of this name as JSON bytes; `null` where there is none."""
        scope: Scope | None = self
        while scope is not None:
            if scope.holds(name):
                return scope.raw(name)
            scope = scope.outer
        return b"null"

    def documents(self, names: Iterable[str]) -> dict[str, bytes]:
        """What an isolate call needs."""
        return {name: self.document(name) for name in names}

    def holds(self, name: str) -> bool:
        """Whether this scope itself, not an outer one, has the name."""
        return name in self._raw or (self._sources is not None and name in self._sources)

    def raw(self, name: str) -> bytes:
        """A document of this scope itself."""
        document = self._raw.get(name)
        if document is None:
            assert self._sources is not None  # noqa: S101  # holds(name) said so
            document = self._raw[name] = self._sources[name]()
        return document

    def read(self, name: str) -> Json:
        """A document of this scope itself, decoded."""
        value = self._decoded[name] = decode(self.raw(name))
        return value

    def __getitem__(self, name: str) -> Json:
        if name not in self:
            raise KeyError(name)
        return self.get(name)

    def __contains__(self, name: object) -> bool:
        scope: Scope | None = self
        while scope is not None:
            if isinstance(name, str) and scope.holds(name):
                return True
            scope = scope.outer
        return False

    def __iter__(self) -> Iterator[str]:
        names = dict.fromkeys(self._raw) | dict.fromkeys(self._sources or ())
        return iter(names | dict.fromkeys(self.outer or ()))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class IterationScope(Scope):
    """The scope of one iteration.

    `whole`: the loop's id also shows the iteration's steps, not `item` and `index` alone.
    """

    __slots__ = ("_index", "_item", "_loop_id", "_whole")

    def __init__(self, outer: Scope, loop_id: str, item: msgspec.Raw, index: int, *, whole: bool) -> None:
        super().__init__(outer)
        self._loop_id = loop_id
        self._item = item
        self._index = index
        self._whole = whole

    def holds(self, name: str) -> bool:
        """Steps of the iteration, and the loop's id."""
        return name == self._loop_id or name in self._raw

    def raw(self, name: str) -> bytes:
        """The loop's document is put together from what is there by now."""
        if name != self._loop_id:
            return self._raw[name]
        steps = self._raw.items() if self._whole else ()
        inside = b"".join(b',"%b":%b' % (step.encode(), document) for step, document in steps)
        return b'{"item":%b,"index":%d%b}' % (bytes(self._item), self._index, inside)

    def read(self, name: str) -> Json:
        """As of Scope; the loop's id as far as it is asked for."""
        if name != self._loop_id:
            return super().read(name)
        if not self._whole:
            value = self._decoded[name] = {"item": decode(bytes(self._item)), "index": self._index}
            return value
        # Not kept: it grows with every step of the iteration.
        return {"item": decode(bytes(self._item)), "index": self._index} | {step: self.get(step) for step in self._raw}
