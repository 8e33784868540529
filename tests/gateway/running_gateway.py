"""The gateway on a real port, in a thread of its own, with real auth and flows; the executor is a small servicer.

The executor's double keeps runs that a test puts in, and streams what a test tells it: jails and runs have suites of
their own.
"""

import asyncio
import socket
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import httpx
from millrace.executor.v1 import piece_pb2_grpc, run_pb2_grpc
from millrace.flows.v1 import version_pb2, version_pb2_grpc
from pydantic import SecretStr

from chassis.identity import service_caller
from chassis.lifecycle import Chassis, Process, Running, Service, serving
from chassis.settings import ServiceSettings
from gateway.service import build as build_gateway
from gateway.settings import GatewaySettings
from services.auth.service import build as build_auth
from services.auth.settings import AuthSettings
from services.flows.service import build as build_flows
from services.flows.settings import FlowsSettings
from tests.gateway.rpc import ExecutorDouble

PASSWORD = "correct horse battery"
T = TypeVar("T")
_senders = count(1)


@dataclass
class Person:
    """Somebody signed up, and a client that carries their token."""

    client: httpx.Client
    email: str
    user_id: str
    project_id: str
    access_token: str
    refresh_token: str


@dataclass
class RunningGateway:
    """What a test talks to."""

    url: str
    process: Process
    loop: asyncio.AbstractEventLoop
    executor: ExecutorDouble
    _clients: list[httpx.Client] = field(default_factory=list)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs something in the gateway's thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def client(self, **headers: str) -> httpx.Client:
        """A client with a network address of its own, so that limits do not cross tests."""
        number = next(_senders)
        forwarded = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        client = httpx.Client(base_url=self.url, headers={"x-forwarded-for": forwarded, **headers}, timeout=20)
        self._clients.append(client)
        return client

    def person(self, name: str = "Ada") -> Person:
        """Signs somebody up."""
        client = self.client()
        email = f"p{next(_senders)}@example.org"
        answer = client.post("/api/v1/auth/sign-up", json={"email": email, "password": PASSWORD, "name": name})
        assert answer.status_code == 201, answer.text
        told = answer.json()
        client.headers["authorization"] = f"Bearer {told['tokens']['access_token']}"
        return Person(
            client,
            email,
            told["user"]["id"],
            told["project"]["id"],
            told["tokens"]["access_token"],
            told["tokens"]["refresh_token"],
        )

    async def apply_changes(self, flow_id: str, failure: str = "") -> None:
        """Reports as every consumer would, until the flow has left `enabling`."""
        stub: version_pb2_grpc.VersionServiceAsyncStub = version_pb2_grpc.VersionServiceStub(
            self.process.channel("flows", service_caller("webhooks"))
        )
        live = (await stub.GetLiveFlow(version_pb2.GetLiveFlowRequest(flow_id=flow_id))).flow
        for consumer in ("webhooks", "scheduler", "executor"):
            await stub.ReportApplied(
                version_pb2.ReportAppliedRequest(
                    flow_id=flow_id, change_number=live.change_number, consumer=consumer, failure=failure
                )
            )

    def close(self) -> None:
        for client in self._clients:
            client.close()


@contextmanager
def running_gateway(home: Path, url: str, **settings: Any) -> Iterator[RunningGateway]:
    """Everything, started in a thread and stopped at the end."""
    common: dict[str, Any] = {
        "home": home,
        "database_url": url,
        "internal_key": SecretStr("an internal key of tests, 0123456789"),
        "drain_s": 1.0,
        "addresses": {"webhooks": f"unix:{home}/nobody.sock"},
    }
    executor = ExecutorDouble()
    keys = SecretStr("k1:MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY=")
    port = _free_port()
    services: list[Service[Any]] = [
        Service(build_auth, AuthSettings(**common, encryption_keys=keys, auth_bcrypt_cost=4)),
        Service(build_flows, FlowsSettings(**common, publish_wait_s=1.0)),
        _service_of(executor, ServiceSettings(**common)),
        Service(
            build_gateway,
            GatewaySettings(
                **common,
                port=port,
                trusted_proxies=["127.0.0.0/8"],
                ready_services=["auth", "flows", "executor"],
                **settings,
            ),
        ),
    ]
    box: dict[str, Any] = {}
    up = threading.Event()

    async def life() -> None:
        async with serving(services, listen=False) as process:
            box.update(process=process, loop=asyncio.get_running_loop())
            up.set()
            await process.wait()

    def work() -> None:
        try:
            asyncio.run(life())
        except BaseException as error:  # noqa: BLE001  # told to the test below
            box["error"] = error
        finally:
            up.set()

    thread = threading.Thread(target=work, name="gateway", daemon=True)
    thread.start()
    up.wait(30)
    if "error" in box:
        raise box["error"]
    gateway = RunningGateway(f"http://127.0.0.1:{port}", box["process"], box["loop"], executor)
    try:
        yield gateway
    finally:
        gateway.close()
        box["loop"].call_soon_threadsafe(box["process"].stop)
        thread.join(20)
        if "error" in box:
            raise box["error"]


def _service_of(executor: ExecutorDouble, settings: ServiceSettings) -> Service[ServiceSettings]:
    async def build(_settings: ServiceSettings, _chassis: Chassis) -> Running:
        return Running(
            servicers=[
                (run_pb2_grpc.add_RunServiceServicer_to_server, executor),
                (piece_pb2_grpc.add_PieceServiceServicer_to_server, executor),
            ]
        )

    return Service(build, settings, name="executor")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
