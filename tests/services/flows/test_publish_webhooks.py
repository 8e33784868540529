"""Publishing with the real consumer: when the call returns, the next webhook meets the new version."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from millrace.auth.v1 import account_pb2, connection_pb2
from millrace.auth.v1.account_pb2_grpc import AccountServiceStub
from millrace.auth.v1.connection_pb2_grpc import ConnectionServiceStub
from millrace.events.v1.events_pb2 import ExecutionBatch
from millrace.flows.v1.flow_pb2 import (
    FLOW_STATE_DISABLED,
    FLOW_STATE_ENABLE_FAILED,
    FLOW_STATE_ENABLED,
    FLOW_STATE_ENABLING,
)
from millrace.webhooks.v1 import ingest_pb2
from millrace.webhooks.v1.ingest_pb2_grpc import IngestServiceStub
from pydantic import SecretStr

from chassis.identity import ANONYMOUS, Caller, acting_as, service_caller
from chassis.ids import new_text_id
from chassis.lifecycle import Service
from gateway.hooks import Calls, ingest_calls
from services.auth.service import build as build_auth
from services.auth.settings import AuthSettings
from services.webhooks.service import build as build_webhooks
from services.webhooks.settings import WebhooksSettings
from tests.services.flows.running import HOOK, Flows, common_settings, document, member, running_flows

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = {**HOOK, "input": {"auth": "header", "header": "x-secret", "secret": "{{connections.shop.secret}}"}}


@dataclass
class Platform:
    """Flows, webhooks and auth together."""

    flows: Flows
    calls: Calls
    accounts: Any
    connections: Any

    async def send(self, flow_id: str, mode: int = ingest_pb2.INGEST_MODE_ASYNC, **headers: str) -> int:
        """One webhook, as the gateway passes it on. Return the status it is answered with."""
        answer = await self.calls.call(
            ingest_pb2.InboundWebhook(
                flow_id=flow_id,
                mode=mode,  # type: ignore[arg-type]  # a number of the enum
                method="POST",
                headers=[
                    ingest_pb2.Header(name=name.replace("_", "-"), value=value)
                    for name, value in {"content_type": "application/json", **headers}.items()
                ],
                body=b'{"n": 1}',
            )
        )
        status: int = answer.status
        return status

    async def ran(self, flow_id: str) -> list[str]:
        """The versions that the events of a flow asked for, in order."""
        rows = await self.flows.database.fetch(
            """SELECT r.value FROM log.record r JOIN log.topic t ON t.id = r.topic_id
            WHERE t.name = 'executions' ORDER BY r."offset" """
        )
        batches = [ExecutionBatch.FromString(row["value"]) for row in rows]
        return [request.version_id for batch in batches for request in batch.requests if request.flow_id == flow_id]

    async def signed_up(self) -> Caller:
        """Somebody with a project that auth knows."""
        request = account_pb2.SignUpRequest(email=f"{new_text_id()}@example.org", password="correct horse", name="Ada")
        return member((await self.accounts.SignUp(request)).project.id)

    async def connect(self, caller: Caller, name: str, secret: str) -> None:
        with acting_as(caller):
            await self.connections.CreateConnection(
                connection_pb2.CreateConnectionRequest(
                    name=name, kind=connection_pb2.CONNECTION_KIND_SECRET_TEXT, secret=secret
                )
            )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(
    new_database_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Platform]:
    home, url = tmp_path_factory.mktemp("pf"), new_database_url()
    common = common_settings(home, url)
    keys = SecretStr("k1:MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY=")
    auth = Service(build_auth, AuthSettings(**common, encryption_keys=keys, auth_bcrypt_cost=4), "auth")
    webhooks = Service(build_webhooks, WebhooksSettings(**common), "webhooks")
    async with running_flows(home, url, auth, webhooks, common=common, publish_wait_s=10) as flows:
        calls = ingest_calls(IngestServiceStub(flows.process.channel("webhooks", service_caller("gateway"))))
        auth_channel = flows.process.channel("auth", ANONYMOUS)
        async with calls:
            yield Platform(flows, calls, AccountServiceStub(auth_channel), ConnectionServiceStub(auth_channel))


async def test_after_publishing_the_next_webhook_meets_the_new_version(platform: Platform) -> None:
    caller, flows = member(), platform.flows
    flow_id = (await flows.create(caller, document())).flow.id
    versions = []
    for number in range(5):
        response = await flows.publish(caller, flow_id)
        assert response.flow.state == FLOW_STATE_ENABLED
        versions.append(response.version.id)
        assert await platform.send(flow_id) == 200
        await flows.edit(caller, flow_id, number + 1, {"op": "set_note", "note": str(number)})
    assert await platform.ran(flow_id) == versions


async def test_a_flow_answers_as_it_is_switched(platform: Platform) -> None:
    caller, flows = member(), platform.flows
    flow_id = (await flows.create(caller, document())).flow.id
    assert await platform.send(flow_id) == 409
    await flows.publish(caller, flow_id)
    assert await platform.send(flow_id) == 200
    assert (await flows.disable(caller, flow_id)).state == FLOW_STATE_DISABLED
    assert await platform.send(flow_id) == 409
    assert (await flows.enable(caller, flow_id)).state == FLOW_STATE_ENABLED
    assert await platform.send(flow_id) == 200
    await flows.delete(caller, flow_id)
    assert await platform.send(flow_id) == 410
    assert await platform.send(new_text_id()) == 404


async def test_a_version_that_webhooks_cannot_take_leaves_the_old_one_live(platform: Platform) -> None:
    caller, flows = await platform.signed_up(), platform.flows
    flow_id = (await flows.create(caller, document())).flow.id
    first = (await flows.publish(caller, flow_id)).version.id
    change = {"op": "update_trigger", "trigger_id": "hook", "changes": {"input": SECRET["input"]}}
    assert not (await flows.edit(caller, flow_id, 1, change)).faults
    refused = await flows.publish(caller, flow_id)
    assert refused.flow.state == FLOW_STATE_ENABLE_FAILED
    assert "shop" in refused.flow.failure
    assert refused.flow.published_version_id == first
    assert await platform.send(flow_id) == 200
    assert await platform.ran(flow_id) == [first]

    await platform.connect(caller, "shop", "hush")
    enabled = await flows.enable(caller, flow_id)
    assert (enabled.state, enabled.published_version_id) == (FLOW_STATE_ENABLED, refused.version.id)
    assert await platform.send(flow_id) == 401
    assert await platform.send(flow_id, x_secret="hush") == 200
    assert await platform.ran(flow_id) == [first, refused.version.id]


async def test_a_first_version_that_webhooks_cannot_take_is_not_live(platform: Platform) -> None:
    caller, flows = member(), platform.flows
    flow_id = (await flows.create(caller, document(triggers=[SECRET]))).flow.id
    assert (await flows.publish(caller, flow_id)).flow.state == FLOW_STATE_ENABLE_FAILED
    assert await platform.send(flow_id) // 100 in (4, 5)
    assert await platform.ran(flow_id) == []


async def test_simulating_runs_the_draft_and_keeps_a_sample(platform: Platform) -> None:
    caller, flows = member(), platform.flows
    flow_id = (await flows.create(caller, document())).flow.id
    assert await platform.send(flow_id, ingest_pb2.INGEST_MODE_SIMULATE) in (200, 202)
    (version_id,) = await platform.ran(flow_id)
    rows = await flows.database.fetch("SELECT id::text, number FROM flows.version WHERE flow_id = $1", flow_id)
    assert [(row["id"], row["number"]) for row in rows] == [(version_id, 0)]
    assert await flows.database.fetchval("SELECT count(*) FROM flows.sample WHERE flow_id = $1", flow_id) == 1


async def test_a_consumer_that_comes_late_takes_what_it_missed(
    new_database_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """webhooks away: publishing answers `enabling`; when it is back, it takes the version, and the flow is live."""
    home, url = tmp_path_factory.mktemp("pf"), new_database_url()
    common = common_settings(home, url)
    caller = member()
    async with running_flows(home, url, common=common, publish_wait_s=0.05) as flows:
        flow_id = (await flows.create(caller, document())).flow.id
        assert (await flows.publish(caller, flow_id)).flow.state == FLOW_STATE_ENABLING
    webhooks = Service(build_webhooks, WebhooksSettings(**common), "webhooks")
    async with running_flows(home, url, webhooks, common=common) as flows, asyncio.timeout(10):
        while (await flows.flow(caller, flow_id)).state != FLOW_STATE_ENABLED:
            await asyncio.sleep(0.02)
