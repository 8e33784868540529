"""What a replica knows of flows, when changes overtake each other."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

from millrace.flows.v1.version_pb2 import LiveFlow

from chassis.clock import SystemClock
from services.webhooks.endpoints import Endpoints

FLOW = "0197c1f0-0000-7000-8000-000000000002"


class SlowSecrets:
    """auth, which answers when the test says so."""

    def __init__(self) -> None:
        self.answer = asyncio.Event()

    async def resolve(self, project_id: str, references: object) -> dict[str, bytes]:
        await self.answer.wait()
        return {}


def flow(change_number: int, *, enabled: bool = True) -> LiveFlow:
    trigger = {"id": "hook", "kind": "piece", "piece": "webhook", "event": "catch", "input": {}}
    document = json.dumps({"name": "x", "triggers": [trigger], "steps": []}).encode()
    return LiveFlow(
        flow_id=FLOW, project_id=FLOW, version_id=FLOW, change_number=change_number, enabled=enabled, document=document
    )


async def test_an_older_change_that_waited_for_its_secrets_does_not_undo_a_newer_one() -> None:
    """A comparison with flows' list read the flow before it was disabled, and then took it live again."""
    secrets = SlowSecrets()
    endpoints = Endpoints(cast("Any", None), cast("Any", secrets), SystemClock())
    older = asyncio.create_task(endpoints.apply(flow(1)))
    await asyncio.sleep(0)
    await endpoints.apply(flow(2, enabled=False))
    secrets.answer.set()
    assert await older == ""
    known = endpoints.get(FLOW)
    assert known is not None
    assert (known.state, known.change_number) == ("disabled", 2)
