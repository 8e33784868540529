"""Whether the services behind the gateway answer.

Decides: each service is asked by the standard health protocol, all at once, with a short deadline; the answer is kept
for a moment, so that probes cannot be made into a load.
Leaves: what serving means to each service.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import grpc.aio
from grpc_health.v1 import health_pb2

from chassis.clock import Clock
from chassis.errors import MillraceError

_KEEP_S = 1.0
_ANSWER_WITHIN_S = 2.0

Ask = Callable[[str], Awaitable[str]]
"""Asks a service by name; answers `serving`, `not_serving` or `away`."""


class Readiness:
    """Asks the services that this installation needs."""

    def __init__(self, services: Sequence[str], ask: Ask, clock: Clock) -> None:
        self._services, self._ask, self._clock = list(services), ask, clock
        self._answers: dict[str, str] = {}
        self._asked_at = float("-inf")
        self._lock = asyncio.Lock()

    async def answers(self) -> dict[str, str]:
        """Service → how it is, at most a second old."""
        async with self._lock:
            if self._clock.monotonic() - self._asked_at > _KEEP_S:
                found = await asyncio.gather(*(self._ask(service) for service in self._services))
                self._answers = dict(zip(self._services, found, strict=True))
                self._asked_at = self._clock.monotonic()
            return self._answers


def health_over(channel: Callable[[str], grpc.aio.Channel]) -> Ask:
    """Asks by `grpc.health.v1` over the channel to each service."""

    async def ask(service: str) -> str:
        check = channel(service).unary_unary(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = await check(health_pb2.HealthCheckRequest(), timeout=_ANSWER_WITHIN_S)
        except MillraceError:
            return "away"
        return "serving" if answer.status == health_pb2.HealthCheckResponse.SERVING else "not_serving"

    return ask
