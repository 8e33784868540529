"""Plans of versions: asked for together, kept for later, and never lost between the question and its use."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, cast

import pytest
from millrace.flows.v1 import version_pb2 as pb

from chassis.errors import Internal, TooLarge
from services.executor import plans as module
from services.executor.engine.plan import Plan
from services.executor.plans import Plans


class Flows:
    """flows, with documents so large that only some fit into a message."""

    def __init__(self, most: int = 200) -> None:
        self.most = most
        self.failures: list[Exception] = []
        self.calls: Counter[int] = Counter()

    async def BatchGetVersions(self, request: pb.BatchGetVersionsRequest) -> pb.BatchGetVersionsResponse:  # noqa: N802
        await asyncio.sleep(0)
        self.calls[len(request.version_ids)] += 1
        if self.failures:
            raise self.failures.pop()
        if len(request.version_ids) > self.most:
            raise TooLarge("MESSAGE_TOO_LARGE", "A message from flows is too large.")
        document = b'{"name":"x","steps":[]}'
        return pb.BatchGetVersionsResponse(
            versions=[pb.Version(id=version_id, document=document) for version_id in request.version_ids]
        )


def plans_of(flows: Flows) -> Plans:
    return Plans(cast("Any", flows), lambda flow, version_id: cast("Plan", version_id))


async def test_versions_too_large_for_one_message_come_in_several() -> None:
    """The refusal ended the executor, again after every restart, for as long as the backlog named these versions."""
    flows = Flows(most=3)
    wanted = {f"v{n}" for n in range(10)}
    assert (await plans_of(flows).get(wanted)).keys() == wanted


async def test_a_version_too_large_for_any_message_is_said_to_be_so() -> None:
    plans = plans_of(Flows(most=0))
    assert not await plans.get({"v"})
    assert "too large" in plans.why_not("v")


async def test_a_fault_of_flows_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AWAY_RETRY_S", 0.0)
    flows = Flows()
    flows.failures = [Internal("INTERNAL", "Something went wrong inside Millrace.")]
    assert (await plans_of(flows).get({"v"})).keys() == {"v"}


async def test_a_plan_known_before_is_not_lost_to_those_who_ask_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its run ended as if its version were gone."""
    monkeypatch.setattr(module, "KEPT", 2)
    plans = plans_of(Flows())
    await plans.get({"old"})
    _, both = await asyncio.gather(plans.get({"a", "b", "c"}), plans.get({"old", "new"}))
    assert both.keys() == {"old", "new"}
