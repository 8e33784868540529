"""The live view: who may watch, what they see, what happens to slow readers and ended sessions."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from millrace.executor.v1 import run_pb2
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from chassis.ids import new_text_id
from gateway.live import MAX_WAITING, PROTOCOL, Waiting
from tests.gateway.running_gateway import Person, RunningGateway


def address(gateway: RunningGateway, query: str = "") -> str:
    return f"{gateway.url.replace('http', 'ws')}/api/v1/live{query}"


@contextmanager
def watching(gateway: RunningGateway, person: Person, query: str = "") -> Iterator[ClientConnection]:
    """A socket that proved itself by its subprotocol and was told that it is ready."""
    offered = [Subprotocol(PROTOCOL), Subprotocol(f"bearer.{person.access_token}")]
    with connect(address(gateway, query), subprotocols=offered) as socket:
        assert socket.subprotocol == PROTOCOL
        assert receive(socket) == {"type": "ready"}
        wait_for_watchers(gateway, person, 1)
        yield socket


def receive(socket: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(socket.recv(timeout=10))
    return message


def closed_with(socket: ClientConnection) -> int:
    """Reads until the socket is closed, and returns the code."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            socket.recv(timeout=10)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


def wait_for_watchers(gateway: RunningGateway, person: Person, many: int) -> None:
    until = time.monotonic() + 10
    while sum(project == person.project_id for project, _ in gateway.executor.watchers) != many:
        assert time.monotonic() < until
        time.sleep(0.01)


def tell(gateway: RunningGateway, person: Person, answer: run_pb2.WatchRunsResponse | None) -> None:
    """What the executor streams to the watchers of a project; None ends their streams."""

    async def put() -> None:
        for project, queue in gateway.executor.watchers:
            if project == person.project_id:
                queue.put_nowait(answer)

    gateway.call(put())


def progress(run_id: str) -> run_pb2.RunProgress:
    step = run_pb2.StepRun(step_id="fetch", attempt=1, status=run_pb2.STEP_STATUS_RUNNING)
    return run_pb2.RunProgress(run=run_pb2.Run(id=run_id, status=run_pb2.RUN_STATUS_RUNNING), steps=[step])


def test_progress_of_the_project_arrives_and_that_of_others_does_not(gateway: RunningGateway, person: Person) -> None:
    other, run_id = gateway.person(), new_text_id()
    with watching(gateway, person) as ours, watching(gateway, other) as theirs:
        tell(gateway, person, run_pb2.WatchRunsResponse(progress=[progress(run_id)]))
        told = receive(ours)
        assert (told["type"], told["progress"][0]["run"]["id"]) == ("progress", run_id)
        assert told["progress"][0]["steps"][0]["status"] == "running"
        with pytest.raises(TimeoutError):
            theirs.recv(timeout=0.2)
    wait_for_watchers(gateway, person, 0)


def test_a_first_message_proves_as_well_as_a_subprotocol(gateway: RunningGateway, person: Person) -> None:
    with connect(address(gateway)) as socket:
        assert socket.subprotocol is None
        socket.send(json.dumps({"type": "authenticate", "token": person.access_token}))
        assert receive(socket) == {"type": "ready"}


@pytest.mark.parametrize(
    "first",
    [
        '{"type":"authenticate","token":"forged"}',
        "nonsense",
        '{"type":"authenticate"}',
        '{"type":"watch"}',
        "[" * 50_000,
    ],
)
def test_without_a_good_token_the_socket_is_closed(gateway: RunningGateway, first: str) -> None:
    with connect(address(gateway)) as socket:
        socket.send(first)
        assert closed_with(socket) == 4401


def test_a_binary_first_message_is_refused(gateway: RunningGateway) -> None:
    with connect(address(gateway)) as socket:
        socket.send(b"\x00")
        assert closed_with(socket) == 4401


def test_a_token_in_the_address_proves_nothing(gateway: RunningGateway, person: Person) -> None:
    with connect(address(gateway, f"?token={person.access_token}&access_token={person.access_token}")) as socket:
        with pytest.raises(TimeoutError):
            socket.recv(timeout=0.2)
        wait_for_watchers(gateway, person, 0)


def test_a_foreign_project_does_not_exist(gateway: RunningGateway, person: Person) -> None:
    offered = [Subprotocol(PROTOCOL), Subprotocol(f"bearer.{person.access_token}")]
    other = gateway.person()
    with connect(address(gateway, f"?project_id={other.project_id}"), subprotocols=offered) as socket:
        assert closed_with(socket) == 4404


def test_a_question_that_cannot_be_right_is_not_told_to_try_again(gateway: RunningGateway, person: Person) -> None:
    offered = [Subprotocol(PROTOCOL), Subprotocol(f"bearer.{person.access_token}")]
    with connect(address(gateway, "?flow_id=" + "x" * 37), subprotocols=offered) as socket:
        assert json.loads(socket.recv(timeout=5)) == {"type": "ready"}
        assert closed_with(socket) == 4400


def test_the_end_of_the_session_closes_the_socket(gateway: RunningGateway, person: Person) -> None:
    with watching(gateway, person) as socket:
        gateway.client().post("/api/v1/auth/sign-out", json={"refresh_token": person.refresh_token})
        assert closed_with(socket) == 4401
    wait_for_watchers(gateway, person, 0)


def test_a_fresh_token_of_the_session_is_taken_and_one_of_another_is_not(
    gateway: RunningGateway, person: Person
) -> None:
    fresh = gateway.client().post("/api/v1/auth/refresh", json={"refresh_token": person.refresh_token}).json()
    with watching(gateway, person) as socket:
        socket.send(json.dumps({"type": "authenticate", "token": fresh["tokens"]["access_token"]}))
        tell(gateway, person, run_pb2.WatchRunsResponse(progress=[progress("r")]))
        assert receive(socket)["type"] == "progress"
        socket.send(json.dumps({"type": "authenticate", "token": gateway.person().access_token}))
        assert closed_with(socket) == 4401


def test_a_cut_stream_is_told_and_taken_up_again(gateway: RunningGateway, person: Person) -> None:
    with watching(gateway, person) as socket:
        tell(gateway, person, None)
        assert receive(socket) == {"type": "interrupted"}
        wait_for_watchers(gateway, person, 1)
        tell(gateway, person, run_pb2.WatchRunsResponse(progress=[progress("after")]))
        assert receive(socket)["progress"][0]["run"]["id"] == "after"


def test_what_the_executor_dropped_is_passed_on(gateway: RunningGateway, person: Person) -> None:
    with watching(gateway, person) as socket:
        tell(gateway, person, run_pb2.WatchRunsResponse(dropped=7))
        assert receive(socket) == {"type": "dropped", "dropped": 7}


async def test_what_waits_for_a_slow_reader_is_bounded_and_the_oldest_is_counted() -> None:
    waiting = Waiting()
    for number in range(MAX_WAITING + 5):
        waiting.add(run_pb2.WatchRunsResponse(progress=[progress(str(number))], dropped=1 if number == 0 else 0))
    dropped, taken = await waiting.take()
    assert dropped == 6
    assert taken[0].run.id == "5"
    rest = 0
    while rest + len(taken) < MAX_WAITING:
        rest += len((await waiting.take())[1])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await waiting.take()
