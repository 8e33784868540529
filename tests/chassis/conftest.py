"""A running echo service, met over a Unix socket and in process: every promise of the RPC layer is kept by both."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chassis.client import ServiceChannel, open_channel
from chassis.identity import Caller, Signer, service_caller
from chassis.inprocess import InProcessChannel
from chassis.server import RpcServer
from chassis.settings import ServiceSettings
from tests.chassis.echo import Echo, Stub, add_to_server

KEY = b"0123456789abcdef0123456789abcdef"


@dataclass
class Channels:
    """The echo service and a way to it; `stub()` calls it as the service `tester`, or as given."""

    server: RpcServer
    echo: Echo
    settings: ServiceSettings
    kind: str
    opened: list[ServiceChannel]

    def channel(self, caller: Caller | None = None, key: bytes = KEY) -> ServiceChannel:
        address = self.settings.address_of("echo")
        bare = InProcessChannel(self.server) if self.kind == "in process" else open_channel(address, self.settings)
        channel = ServiceChannel(
            bare, service="echo", caller=caller or service_caller("tester"), signer=Signer(key), call_timeout_s=5
        )
        self.opened.append(channel)
        return channel

    def stub(self, caller: Caller | None = None, key: bytes = KEY) -> Any:
        return Stub(self.channel(caller, key))


@pytest.fixture(params=["in process", "socket"])
async def channels(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Channels]:
    settings = ServiceSettings(home=tmp_path)
    server, echo = RpcServer("echo", settings, KEY), Echo()
    add_to_server(echo, server)
    server.listen(settings.address_of("echo"))
    await server.start()
    channels = Channels(server, echo, settings, request.param, [])
    yield channels
    for channel in channels.opened:
        await channel.close()
    await server.stop(0)
    await server.close(0)
