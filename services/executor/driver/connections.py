"""The secrets that a step needs, resolved for the moment of its call.

Decides: how long a resolved connection may be used again (CACHE_S), and that a step waits, and does not fail, while
auth is away.
Leaves: decrypting to auth, filling them in to the driver, hiding them to masking.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
from millrace.auth.v1 import connection_pb2 as pb

from chassis.clock import Clock
from chassis.errors import DeadlineExceeded, Unavailable
from flowlang.expressions import SecretRef, SecretSlot
from flowlang.model import Json
from services.executor.driver.masking import Masker

if TYPE_CHECKING:  # the generated module has this class for type checkers alone
    from millrace.auth.v1.connection_pb2_grpc import ConnectionServiceAsyncStub

CACHE_S = 5.0
AWAY_RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class ResolvedSecrets:
    """Values by connection name, every secret text in them, and what hides those."""

    values: Mapping[str, Json] = field(default_factory=dict)
    texts: tuple[str, ...] = ()
    masker: Masker = field(default_factory=lambda: Masker(()))
    missing: tuple[str, ...] = ()
    """Connections that do not exist."""


@dataclass(frozen=True, slots=True)
class _Cached:
    until: float
    value: Json
    texts: tuple[str, ...]


_NONE = ResolvedSecrets()


class Connections:
    """Resolved connections of all projects, for seconds."""

    def __init__(self, stub: ConnectionServiceAsyncStub, clock: Clock) -> None:
        self._stub = stub
        self._clock = clock
        self._cached: dict[tuple[str, str], _Cached] = {}

    async def resolve(self, project_id: str, slots: Sequence[SecretSlot]) -> ResolvedSecrets:
        """What the references in `slots` stand for.

        A name that does not exist has no value and is told as missing; waits while auth is away.
        """
        if not slots:
            return _NONE
        names = {part.connection for slot in slots for part in slot.parts if isinstance(part, SecretRef)}
        now = self._clock.monotonic()
        missing = [
            name for name in names if (known := self._cached.get((project_id, name))) is None or known.until < now
        ]
        if missing:
            await self._fetch(project_id, missing)
        found = {name: cached for name in names if (cached := self._cached.get((project_id, name))) is not None}
        texts = tuple(text for cached in found.values() for text in cached.texts)
        gone = tuple(sorted(names - found.keys()))
        return ResolvedSecrets({name: cached.value for name, cached in found.items()}, texts, Masker(texts), gone)

    async def _fetch(self, project_id: str, names: list[str]) -> None:
        request = pb.ResolveConnectionsRequest(project_id=project_id, names=names)
        while True:
            try:
                response = await self._stub.ResolveConnections(request)
                break
            except (Unavailable, DeadlineExceeded):
                await asyncio.sleep(AWAY_RETRY_S)
        now = self._clock.monotonic()
        self._cached = {key: cached for key, cached in self._cached.items() if cached.until >= now}
        for name in names:
            self._cached.pop((project_id, name), None)
        for resolved in response.connections:
            value = msgspec.json.decode(resolved.value)
            self._cached[project_id, resolved.name] = _Cached(now + CACHE_S, value, tuple(resolved.secrets))
