"""The life of a process: what opens, answers, works and closes, in which order, and what ends it."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chassis.errors import StartRefused, Unavailable
from chassis.identity import ANONYMOUS, service_caller
from chassis.lifecycle import Chassis, LoopError, Running, Service, serving
from chassis.settings import ServiceSettings
from tests.chassis.echo import Echo, Stub, Words, add_to_server

ROOT = Path(__file__).resolve().parents[2]


def recording(events: list[str], name: str) -> AbstractAsyncContextManager[str]:
    @asynccontextmanager
    async def resource() -> AsyncIterator[str]:
        events.append(f"open {name}")
        try:
            yield name
        finally:
            events.append(f"close {name}")

    return resource()


@pytest.fixture
def settings(tmp_path: Path) -> ServiceSettings:
    return ServiceSettings(home=tmp_path, drain_s=1)


async def test_opens_in_order_serves_and_closes_backwards(settings: ServiceSettings) -> None:
    events: list[str] = []

    async def build(_settings: ServiceSettings, chassis: Chassis) -> Running:
        await chassis.open(recording(events, "database"))
        await chassis.open(recording(events, "log"))

        async def work() -> None:
            events.append("work")
            try:
                await asyncio.Event().wait()
            finally:
                events.append("work ended")

        return Running(loops=[work])

    async with serving([Service(build, settings, "auth")]):
        await asyncio.sleep(0)
        events.append("serving")
    assert events[:2] == ["open database", "open log"]
    assert set(events[2:4]) == {"work", "serving"}
    assert events[4:] == ["work ended", "close log", "close database"]


async def test_services_of_one_process_meet_in_process_and_on_their_sockets(settings: ServiceSettings) -> None:
    found: list[str] = []

    async def build_auth(_settings: ServiceSettings, _chassis: Chassis) -> Running:
        return Running(servicers=[(add_to_server, Echo())])

    async def build_flows(_settings: ServiceSettings, chassis: Chassis) -> Running:
        stub = Stub(chassis.channel("auth"))

        async def ask() -> None:
            found.append((await stub.Say(Words(text="hello"))).text)

        return Running(loops=[ask])

    async with serving([Service(build_flows, settings, "flows"), Service(build_auth, settings, "auth")]):
        while not found:
            await asyncio.sleep(0.001)
        async with grpc.aio.insecure_channel(settings.address_of("auth")) as bare:
            assert (await Stub(bare).Say(Words(text="hello"))).text == "hello"
            health = await health_pb2_grpc.HealthStub(bare).Check(  # type: ignore[attr-defined]  # its stubs know no attributes
                health_pb2.HealthCheckRequest(service="millrace.echo.v1.EchoService")
            )
            assert health.status == health_pb2.HealthCheckResponse.SERVING
    assert found == ["hello"]
    assert not (settings.home / "run" / "auth.sock").exists()


async def test_a_call_under_way_is_answered_before_the_process_ends(settings: ServiceSettings) -> None:
    echo = Echo()

    async def build(_settings: ServiceSettings, _chassis: Chassis) -> Running:
        return Running(servicers=[(add_to_server, echo)])

    async with serving([Service(build, settings, "auth")]) as process:
        stub = Stub(process.channel("auth", ANONYMOUS))
        call = stub.Say(Words(text="wait"))
        async with grpc.aio.insecure_channel(settings.address_of("auth")) as bare:
            over_socket = Stub(bare).Say(Words(text="wait"))
            while echo.waiting < 2:
                await asyncio.sleep(0.001)
            process.stop()
            echo.gate.set()
            assert (await over_socket).text == "wait"
    assert (await call).text == "wait"
    with pytest.raises(Unavailable):
        await stub.Say(Words(text="hello"))


async def test_a_way_in_ends_while_what_stands_behind_it_still_works(settings: ServiceSettings) -> None:
    """A request that waited for a run was refused at the stop: the loop that would have answered it had ended first."""
    events: list[str] = []

    def loop_of(name: str, ends_after_s: float) -> Service[ServiceSettings]:
        async def build(_settings: ServiceSettings, chassis: Chassis) -> Running:
            async def work() -> None:
                try:
                    await asyncio.Event().wait()
                finally:
                    assert chassis.stopping.is_set() == (name == "auth")
                    await asyncio.sleep(ends_after_s)
                    events.append(name)

            return Running(servicers=[(add_to_server, Echo())] if name == "auth" else [], loops=[work])

        return Service(build, settings, name)

    async with serving([loop_of("auth", 0), loop_of("gateway", 0.2)], listen=False):
        await asyncio.sleep(0)
    assert events == ["gateway", "auth"]


async def test_a_loop_that_raises_ends_the_process_with_its_reason(settings: ServiceSettings) -> None:
    closed: list[str] = []

    async def build(_settings: ServiceSettings, chassis: Chassis) -> Running:
        await chassis.open(recording(closed, "database"))

        async def fails() -> None:
            raise ValueError("the reason")

        return Running(loops=[fails])

    async def build_other(_settings: ServiceSettings, chassis: Chassis) -> Running:
        await chassis.open(recording(closed, "other"))
        return Running(loops=[asyncio.Event().wait])  # type: ignore[list-item]

    with pytest.raises(LoopError, match="the reason") as caught:
        async with serving([Service(build, settings, "auth"), Service(build_other, settings, "flows")]) as process:
            await process.wait()
    assert isinstance(caught.value.__cause__, ValueError)
    assert closed.count("close database") == closed.count("close other") == 1


async def test_a_service_that_cannot_open_closes_what_the_others_opened(settings: ServiceSettings) -> None:
    events: list[str] = []

    async def build(_settings: ServiceSettings, chassis: Chassis) -> Running:
        await chassis.open(recording(events, "database"))
        return Running()

    async def build_bad(_settings: ServiceSettings, _chassis: Chassis) -> Running:
        raise StartRefused("no database")

    with pytest.raises(StartRefused, match="no database"):
        async with serving([Service(build, settings, "auth"), Service(build_bad, settings, "flows")]):
            pytest.fail("must not start")
    assert events in ([], ["open database", "close database"])


async def test_stopping_while_starting_is_no_error(settings: ServiceSettings) -> None:
    stopping = asyncio.Event()
    events: list[str] = []

    async def build(_settings: ServiceSettings, chassis: Chassis) -> Running:
        await chassis.open(recording(events, "database"))
        stopping.set()
        await asyncio.Event().wait()
        return Running()

    async with serving([Service(build, settings, "auth")], stopping=stopping) as process:
        await process.wait()
    assert events == ["open database", "close database"]


async def test_a_socket_somebody_answers_on_is_not_taken(settings: ServiceSettings) -> None:
    async def build(_settings: ServiceSettings, _chassis: Chassis) -> Running:
        return Running(servicers=[(add_to_server, Echo())])

    async with serving([Service(build, settings, "auth")]) as process:
        with pytest.raises(StartRefused, match="already answers"):
            async with serving([Service(build, settings, "auth")]):
                pytest.fail("must not start")
        async with process.channel("auth", service_caller("test")) as channel:
            assert await Stub(channel).Say(Words(text="hello"))


async def test_a_socket_file_left_by_a_killed_process_is_replaced(settings: ServiceSettings) -> None:
    import socket

    path = settings.home / "run" / "auth.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async def build(_settings: ServiceSettings, _chassis: Chassis) -> Running:
        return Running(servicers=[(add_to_server, Echo())])

    async with (
        serving([Service(build, settings, "auth")]),
        grpc.aio.insecure_channel(settings.address_of("auth")) as bare,
    ):
        assert await Stub(bare).Say(Words(text="hello"))


async def test_metrics_health_and_readiness_over_http(tmp_path: Path, unused_tcp_port: int) -> None:
    settings = ServiceSettings(home=tmp_path, metrics_port=unused_tcp_port)

    async def build(_settings: ServiceSettings, chassis: Chassis) -> Running:
        chassis.metrics.counter("millrace_things", "Things.").inc(3)
        return Running(servicers=[(add_to_server, Echo())])

    async def get(path: str) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", unused_tcp_port)
        writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        return answer

    async with serving([Service(build, settings, "auth")], listen=False) as process:
        stub = Stub(process.channel("auth", ANONYMOUS))
        await stub.Say(Words(text="hello"))
        metrics = await get("/metrics")
        assert "millrace_things_total 3.0" in metrics
        assert 'millrace_rpc_total{rpc="/millrace.echo.v1.EchoService/Say",status="OK"} 1.0' in metrics
        assert (await get("/healthz")).startswith("HTTP/1.1 200")
        assert (await get("/readyz")).startswith("HTTP/1.1 200")
        process.stop()
        assert (await get("/readyz")).startswith("HTTP/1.1 503")
        assert (await get("/other")).startswith("HTTP/1.1 404")


PROGRAM = textwrap.dedent(
    """
    import asyncio, sys
    from chassis.lifecycle import Running, Service, run_services
    from chassis.settings import ServiceSettings

    async def build(settings, chassis):
        async def work():
            print("working", flush=True)
            try:
                await asyncio.Event().wait()
            finally:
                if "slow" in sys.argv:
                    print("ending", flush=True)
                    await asyncio.sleep(60)
        return Running(loops=[work])

    run_services([Service(build, ServiceSettings, "auth")])
    """
)


def start(tmp_path: Path, *args: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *args],
        cwd=ROOT,
        env={**os.environ, "MILLRACE_HOME": str(tmp_path), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_sigterm_ends_a_process_in_order(tmp_path: Path) -> None:
    with start(tmp_path) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "working\n"
        program.send_signal(signal.SIGTERM)
        assert program.wait(10) == 0


def test_a_second_signal_ends_a_process_at_once(tmp_path: Path) -> None:
    with start(tmp_path, "slow") as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "working\n"
        program.send_signal(signal.SIGTERM)
        assert program.stdout.readline() == "ending\n"
        program.send_signal(signal.SIGTERM)
        assert program.wait(10) == 1


def test_outside_embedded_mode_a_weak_key_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with start(tmp_path, MILLRACE_DATABASE_URL="postgresql://x", MILLRACE_INTERNAL_KEY="short") as program:
        _, complaint = program.communicate(timeout=10)
    assert program.returncode == 78
    assert "MILLRACE_INTERNAL_KEY" in complaint
    assert "Traceback" not in complaint


def test_a_wrong_setting_is_named_and_its_value_is_not(tmp_path: Path) -> None:
    with start(tmp_path, MILLRACE_METRICS_PORT="many-ports") as program:
        _, complaint = program.communicate(timeout=10)
    assert program.returncode == 78
    assert "MILLRACE_METRICS_PORT" in complaint
    assert "many-ports" not in complaint
