"""The gRPC server of one service: its guarded handlers, where they can be reached, its health, and its end.

Decides: that a handler is guarded when it is registered; that a socket file nobody listens on is removed and one that
somebody does is left alone; the order of the end (NOT_SERVING, no new calls, calls under way, cut off).
Leaves: what the guard does to `guard`; opening what the handlers need to `lifecycle`.
Holds: the same handlers answer on sockets and in process; a server without permissions on every RPC does not start.
"""

import asyncio
import contextvars
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import cast

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from chassis.client import COMMON_OPTIONS, read_tls
from chassis.errors import StartRefused
from chassis.guard import Guard, Handler, Record
from chassis.identity import Verifier
from chassis.permissions import EXEMPT_SERVICES
from chassis.settings import ServiceSettings, prepare_socket_folder
from chassis.telemetry import bind_service

_SERVER_OPTIONS = (
    *COMMON_OPTIONS,
    ("grpc.so_reuseport", 0),  # a second process on the same port is a mistake to be told, not a share of the calls
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),
)


class RpcServer(grpc.aio.Server):
    """Takes servicers (`add_XServicer_to_server(servicer, server)`) and answers: on sockets, in process, or both."""

    def __init__(
        self, name: str, settings: ServiceSettings, key: bytes, recorder: Callable[[str], Record] | None = None
    ) -> None:
        self.name = name
        self.handlers: dict[str, Handler] = {}
        self.serving = False
        self.context = contextvars.copy_context()
        self.context.run(bind_service, name)
        self.calls: set[asyncio.Task[None]] = set()
        self._settings = settings
        self._guard = Guard(Verifier(key), recorder)
        self._services: dict[str, Mapping[str, Handler]] = {}
        self._sockets: grpc.aio.Server | None = None
        self._addresses: list[tuple[str, grpc.ServerCredentials | None]] = []
        self._health = health_aio.HealthServicer()
        self._socket_files: list[Path] = []
        self.ports: list[int] = []
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Generated code registers each service twice; the other way (by method) is the one that is used."""

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: "Mapping[str, grpc.RpcMethodHandler[object, object]]"
    ) -> None:
        guarded = {
            name: self._guard.wrap(f"/{service_name}/{name}", cast(Handler, handler))
            for name, handler in method_handlers.items()
        }
        self._services[service_name] = guarded
        self.handlers.update({f"/{service_name}/{name}": handler for name, handler in guarded.items()})

    def add_insecure_port(self, address: str) -> int:
        self._addresses.append((address, None))
        return 0

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        self._addresses.append((address, server_credentials))
        return 0

    def listen(self, address: str) -> None:
        """Will answer on `unix:/path` or `host:port` from `start` on; TCP with mutual TLS when certificates are set."""
        files = None if address.startswith("unix:") else read_tls(self._settings)
        if files is None:
            self.add_insecure_port(address)
        else:
            chain, key, authority = files
            self.add_secure_port(
                address, grpc.ssl_server_credentials([(key, chain)], authority, require_client_auth=True)
            )

    async def start(self) -> None:
        """Opens the sockets. Health already says SERVING. Raises: StartRefused when an address cannot be had."""
        names = [name for name in self._services if name not in EXEMPT_SERVICES]
        for name in names:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self.serving = True
        if not self._addresses:
            return
        self._sockets = sockets = grpc.aio.server(options=_SERVER_OPTIONS)
        reflected = reflection.aio.ReflectionServicer([*names, *EXEMPT_SERVICES])
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflected, sockets)  # type: ignore[no-untyped-call]  # generated without types
        for service_name, handlers in self._services.items():
            sockets.add_registered_method_handlers(service_name, handlers)
        for address, credentials in self._addresses:
            await self._bind(sockets, address, credentials)
        await sockets.start()

    async def _bind(self, sockets: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> None:
        if address.startswith("unix:"):
            path = Path(address.removeprefix("unix:"))
            prepare_socket_folder(path)
            await asyncio.to_thread(_remove_if_dead, path)
            self._socket_files.append(path)
        try:
            if credentials is None:
                port = sockets.add_insecure_port(address)
            else:
                port = sockets.add_secure_port(address, credentials)
        except RuntimeError:
            raise StartRefused(f"Cannot listen on {address}. Is the address in use, or not this machine's?") from None
        self.ports.append(port)

    async def stop(self, grace: float | None) -> None:
        """Says NOT_SERVING for good, takes no new calls over sockets, cuts off those under way after `grace`."""
        await self._health.enter_graceful_shutdown()
        if self._sockets is not None:
            await self._sockets.stop(grace)

    async def close(self, grace: float) -> None:
        """Ends calls in process as `stop` ends those over sockets; comes after all servers of the process stopped."""
        self.serving = False
        if self._sockets is not None:
            await self._sockets.stop(0)
        calls = set(self.calls)
        if calls:
            _, late = await asyncio.wait(calls, timeout=grace)
            for call in late:
                call.cancel()
            if late:
                await asyncio.wait(late)
        for path in self._socket_files:
            path.unlink(missing_ok=True)

    async def wait_for_termination(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109  # the shape of grpc.aio
        return self._sockets is None or await self._sockets.wait_for_termination(timeout)


def _remove_if_dead(path: Path) -> None:
    """Removes what a killed process left behind. Raises: StartRefused when somebody listens, or it is no socket."""
    if not path.exists():
        return
    if not path.is_socket():
        raise StartRefused(f"{path} is in the way: a socket should be there. Remove it and start again.")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise StartRefused(f"The socket {path} cannot be tried: {error.strerror}.") from None
    raise StartRefused(f"Another process already answers on {path}. Stop it first, or set another MILLRACE_HOME.")
