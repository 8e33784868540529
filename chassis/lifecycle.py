"""The life of a process: open, serve, work, drain, close; for one service or for several together.

Decides: the order. All services open what they need; then all answer and say SERVING; then all loops work. At the stop:
first what has loops alone (the gateway: a way in), while all that stands behind it still works; then NOT_SERVING and no
new calls, calls under way, loops, calls in process; then resources in reverse order of opening.
A loop that raises ends the process with its reason; who supervises starts it again (nothing heals half a process).
Leaves: what a service is to its `service.py`; restarting to `supervisor` or the cluster.
Holds: every step of the stop is bounded in time; a second signal ends the process at once.

    Service(build, FlowsSettings)                       # build: async (settings, chassis) -> Running
    run_service(build, FlowsSettings)                   # `python -m services.flows`
    run_services([Service(...), Service(...)])          # several in one process
    async with serving([Service(...)]) as process: ...  # inside a running loop: tests, embedded edge
"""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Generic, Never, TypeVar

import grpc
import structlog
import uvloop
from pydantic import ValidationError

from chassis.client import ServiceChannel, open_channel
from chassis.clock import Clock, SystemClock
from chassis.errors import StartRefused
from chassis.identity import Caller, Signer, service_caller
from chassis.inprocess import InProcessChannel
from chassis.metrics_http import MetricsHttp
from chassis.server import RpcServer
from chassis.settings import ServiceSettings
from chassis.supervisor import EXIT_REFUSED, tell_ready
from chassis.telemetry import Metrics, bind_service, configure_logging

S = TypeVar("S", bound=ServiceSettings)
T = TypeVar("T")
AddServicer = Callable[[Never, grpc.aio.Server], None]
"""`add_XServicer_to_server` of generated code."""
Loop = Callable[[], Awaitable[None]]

_log = structlog.get_logger("chassis.lifecycle")


class LoopError(Exception):
    """A loop of a service ended with an error; the process must end. `__cause__` is that error."""


@dataclass(frozen=True, slots=True)
class Running:
    """What a service answers and what it does by itself, once everything it needs is open."""

    servicers: Sequence[tuple[AddServicer, object]] = ()
    loops: Sequence[Loop] = ()


class Chassis:
    """What a service gets to build itself with. One for each service, also when several share a process."""

    def __init__(self, name: str, settings: ServiceSettings, process: "Process", stack: AsyncExitStack) -> None:
        self.name = name
        self.settings = settings
        self.clock: Clock = process.clock
        self.metrics = process.metrics
        self.stopping = process.closing
        """Set when this service is to end. Servicers of standing streams end them then (`streams.until`)."""
        self._process = process
        self._stack = stack
        self._channels: dict[str, ServiceChannel] = {}

    async def open(self, resource: AbstractAsyncContextManager[T]) -> T:
        """Enters a resource, to be closed when the service ends, in reverse order of opening."""
        return await self._stack.enter_async_context(resource)

    def channel(self, service: str) -> grpc.aio.Channel:
        """The channel to a service: inside the process when it runs here, else over its socket.

        Calls are made as this service, unless `acting_as` says otherwise. Calls
        during `build` may meet a service that does not answer yet (Unavailable SERVICE_AWAY): call from loops.
        """
        channel = self._channels.get(service)
        if channel is None:
            channel = self._process.channel(service, service_caller(self.name), self.settings)
            self._channels[service] = channel
            self._stack.push_async_callback(channel.close)
        return channel

    def channel_to(self, service: str, address: str) -> grpc.aio.Channel:
        """A channel to one replica of a service, by its address. Whoever asks closes it."""
        return self._process.channel(service, service_caller(self.name), self.settings, address)


@dataclass(frozen=True, slots=True)
class Service(Generic[S]):
    """One service to run: its `build`, its settings (the class, read from the environment, or an instance), its name.

    The name is the package under `services` that `build` stands in, unless given.
    """

    build: Callable[[S, Chassis], Awaitable[Running]]
    settings: type[S] | S
    name: str = ""

    @property
    def called(self) -> str:
        """The service's name."""
        return self.name or self.build.__module__.rpartition(".")[0].rpartition(".")[2]

    def resolved(self) -> "_Resolved":
        """The service with its settings read. Raises: StartRefused naming each setting that is wrong."""
        try:
            settings = self.settings() if isinstance(self.settings, type) else self.settings
        except ValidationError as error:
            raise StartRefused(f"The settings of the {self.called} service are wrong. {_sentences(error)}") from None
        return _Resolved(self.called, settings, lambda chassis: self.build(settings, chassis))


@dataclass(frozen=True, slots=True)
class _Resolved:
    """A service whose settings are known: the type of its settings no longer matters."""

    name: str
    settings: ServiceSettings
    build: Callable[[Chassis], Awaitable[Running]]


def _sentences(error: ValidationError) -> str:
    return " ".join(
        f"MILLRACE_{'__'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}."
        for fault in error.errors(include_input=False, include_url=False)
    )


class Process:
    """The services of this process while they run. Made by `serving`."""

    def __init__(self, clock: Clock, metrics: Metrics, stopping: asyncio.Event) -> None:
        self.clock = clock
        self.metrics = metrics
        self.stopping = stopping
        self.started = asyncio.Event()
        self.closing = asyncio.Event()
        """Set when the ways in have ended, and with them whoever waits there: now the services behind them end."""
        self._ways_in: set[str] = set()
        self._servers: dict[str, RpcServer] = {}
        self._signer: Signer | None = None
        self._settings: ServiceSettings | None = None
        self._barrier = asyncio.Barrier(1)

    @property
    def ready(self) -> bool:
        """Whether all services answer."""
        return self.started.is_set() and not self.stopping.is_set()

    def stop(self) -> None:
        """Begins to stop. Returns at once; leaving `serving` waits for the end."""
        self.stopping.set()

    async def wait(self) -> None:
        """Returns when the process is to stop; if a loop failed, leaving `serving` raises it."""
        await self.stopping.wait()

    def channel(
        self, service: str, caller: Caller, settings: ServiceSettings | None = None, address: str = ""
    ) -> ServiceChannel:
        """A channel to a service, or to its replica at `address`, on which `caller` calls. Whoever asks closes it."""
        settings = settings or self._settings
        if settings is None or self._signer is None:
            raise StartRefused("This process runs no service, hence has no settings to open a channel with.")
        server = None if address else self._servers.get(service)
        bare = InProcessChannel(server) if server else open_channel(address or settings.address_of(service), settings)
        return ServiceChannel(
            bare, service=service, caller=caller, signer=self._signer, call_timeout_s=settings.call_timeout_s
        )

    async def run(self, services: "Sequence[_Resolved]", *, listen: bool) -> None:
        """Runs the services from opening to closing."""
        keys = {service.settings.resolved_internal_key() for service in services}
        if len(keys) != 1:
            raise StartRefused("The services of one process must share one MILLRACE_INTERNAL_KEY.")
        key = keys.pop()
        self._signer, self._settings = Signer(key), services[0].settings
        self._barrier = asyncio.Barrier(len(services))
        for service in services:
            self._servers[service.name] = RpcServer(service.name, service.settings, key, self.metrics.rpc)
        async with asyncio.TaskGroup() as group:
            for service in services:
                settings = service.settings
                own = settings.listen_address if len(services) == 1 else settings.address_of
                group.create_task(self._live(service, own if listen else None), name=f"service {service.name}")

    async def _live(self, service: "_Resolved", address_of: Callable[[str], str] | None) -> None:
        bind_service(service.name)
        server = self._servers[service.name]
        async with AsyncExitStack() as stack:
            running = await service.build(Chassis(service.name, service.settings, self, stack))
            for add, servicer in running.servicers:
                add(servicer, server)  # type: ignore[arg-type]  # `Never` stands for the servicer's own class
            if address_of is not None and running.servicers:
                server.listen(address_of(service.name))
            if not running.servicers:
                self._ways_in.add(service.name)
            await self._barrier.wait()
            try:
                await server.start()
                await self._barrier.wait()
                self.started.set()
                await self._work(service.name, running.loops, server, service.settings.drain_s)
            finally:
                await server.close(min(service.settings.drain_s, 2.0))

    async def _work(self, name: str, loops: Sequence[Loop], server: RpcServer, drain_s: float) -> None:
        """Runs the loops until the process stops, then drains the server and ends them."""
        stop = asyncio.create_task(self.wait())
        working = {asyncio.create_task(_awaited(loop)) for loop in loops}
        try:
            while not stop.done():
                done, _ = await asyncio.wait({stop, *working}, return_when=asyncio.FIRST_COMPLETED)
                working -= done
                for task in done:
                    if (error := task.exception()) is not None:
                        raise LoopError(f"A loop of the service ended with an error: {error!r}") from error
        finally:
            stop.cancel()
            self.stopping.set()
            await self._end_way_in(name, working, drain_s)
            await self.closing.wait()
            await server.stop(drain_s)
            await _ended(working, drain_s)
            await self._barrier.wait()

    async def _end_way_in(self, name: str, working: "set[asyncio.Task[None]]", drain_s: float) -> None:
        """Ends the loops of a service that has nothing else; the last one lets the others end."""
        try:
            if name in self._ways_in:
                await _ended(working, drain_s)
                working.clear()
        finally:
            self._ways_in.discard(name)
            if not self._ways_in:
                self.closing.set()


async def _awaited(loop: Loop) -> None:
    await loop()


async def _ended(tasks: "set[asyncio.Task[None]]", within_s: float) -> None:
    """Cancels loops and waits for them, not for ever."""
    for task in tasks:
        task.cancel()
    if tasks:
        done, late = await asyncio.wait(tasks, timeout=within_s)
        for task in done:
            if not task.cancelled() and (error := task.exception()) is not None:
                _log.warning("a loop failed while it was ended", exc_info=error)
        if late:
            _log.warning("loops did not end in time", loops=len(late), within_s=within_s)


@asynccontextmanager
async def serving(
    services: Sequence[Service[S]],
    *,
    clock: Clock | None = None,
    listen: bool = True,
    stopping: asyncio.Event | None = None,
) -> AsyncIterator[Process]:
    """Runs services inside the running loop: all answer when the block begins, all are closed when it is left.

    `listen`: also on their sockets, not only inside this process. `stopping`: an event that stops them when set.
    Raises: what kept them from starting (StartRefused, or a resource's own error); on leaving LoopError.
    """
    resolved = [service.resolved() for service in services]
    process = Process(clock or SystemClock(), Metrics(), stopping or asyncio.Event())
    async with AsyncExitStack() as stack:
        if port := resolved[0].settings.metrics_port:
            await stack.enter_async_context(MetricsHttp(port, process.metrics, lambda: process.ready))
        life = asyncio.create_task(process.run(resolved, listen=listen))
        try:
            await _first_of(life, process.started.wait(), process.stopping.wait())
            if process.stopping.is_set() and not process.started.is_set():
                life.cancel()  # asked to stop before everything was open
            if not life.done() or life.cancelled() or life.exception() is None:
                yield process
        finally:
            process.stop()
            await asyncio.wait({life})
        if not life.cancelled() and (error := life.exception()) is not None:
            raise _reason(error)


async def _first_of(life: "asyncio.Task[None]", *events: Coroutine[object, object, object]) -> None:
    waits = [asyncio.create_task(event) for event in events]
    await asyncio.wait({life, *waits}, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


def _reason(error: BaseException) -> BaseException:
    """The first error inside a task group's wrapping."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def run_service(build: Callable[[S, Chassis], Awaitable[Running]], settings: type[S]) -> None:
    """Runs one service as this process, until it is told to stop. Ends the process with its exit code."""
    run_services([Service(build, settings)])


def run_services(services: Sequence[Service[S]]) -> None:
    """Runs services together as this process, until it is told to stop. Ends the process with its exit code."""
    try:
        settings = [service.resolved().settings for service in services]
        name = services[0].called if len(services) == 1 else "millrace"
        configure_logging(settings[0].log_level, process=name)
        uvloop.run(_run(services, settings[0].drain_s))
    except StartRefused as error:
        print(f"millrace: {error}", file=sys.stderr)
        sys.exit(EXIT_REFUSED)
    except Exception as error:  # noqa: BLE001  # the process ends with it, told once, with its stack
        _log.error("the process ends", exc_info=error)
        sys.exit(1)


async def _run(services: Sequence[Service[S]], drain_s: float) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stopping.is_set():
            os._exit(1)  # asked twice
        stopping.set()
        loop.call_later(2 * drain_s + 5, os._exit, 1)  # whatever hangs, it does not hang for ever

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    async with serving(services, stopping=stopping) as process:
        gc.collect()
        gc.freeze()  # what start-up made stays; a full collection need not walk it again
        tell_ready()
        _log.info("started", services=[service.called for service in services])
        await process.wait()
        _log.info("stopping")
