"""What a call is, whether it crosses a socket or stays in the process."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from chassis.errors import (
    MAX_ERROR_BYTES,
    DeadlineExceeded,
    Denied,
    Fault,
    Internal,
    Invalid,
    Limited,
    MillraceError,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from chassis.identity import ANONYMOUS, Caller, acting_as
from tests.chassis.conftest import Channels
from tests.chassis.echo import Words

USER = Caller("user", "u1", "p1", frozenset({4, 5}))


async def words(*texts: str) -> AsyncIterator[Any]:
    for text in texts:
        yield Words(text=text)


async def eventually(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_one_request_one_response(channels: Channels) -> None:
    call = channels.stub().Say(Words(text="hello"))
    assert (await call).text == "hello"
    assert await call.code() is grpc.StatusCode.OK
    assert (await call).text == "hello"
    assert call.done()


async def test_one_request_many_responses(channels: Channels) -> None:
    many = [str(number) for number in range(50)]
    call = channels.stub().Tell(Words(text="last", list=many))
    assert [word.text async for word in call] == [*many, "last"]


async def test_responses_can_be_read_one_by_one(channels: Channels) -> None:
    call = channels.stub().Tell(Words(text="last", list=["a"]))
    assert [(await call.read()).text, (await call.read()).text] == ["a", "last"]
    assert await call.read() is grpc.aio.EOF


async def test_a_handler_may_write_responses_through_its_context(channels: Channels) -> None:
    assert [word.text async for word in channels.stub().Write(Words(list=["a", "b"]))] == ["a", "b"]


async def test_many_requests_one_response(channels: Channels) -> None:
    many = [str(number) for number in range(50)]
    assert list((await channels.stub().Gather(words(*many))).list) == many


async def test_requests_from_a_plain_iterator(channels: Channels) -> None:
    def requests() -> Iterator[Any]:
        yield Words(text="a")
        yield Words(text="b")

    assert list((await channels.stub().Gather(requests())).list) == ["a", "b"]


async def test_requests_written_one_by_one(channels: Channels) -> None:
    call = channels.stub().Gather()
    await call.write(Words(text="a"))
    await call.write(Words(text="b"))
    await call.done_writing()
    assert list((await call).list) == ["a", "b"]


async def test_requests_and_responses_take_turns(channels: Channels) -> None:
    call = channels.stub().Talk()
    for text in ("a", "b"):
        await call.write(Words(text=text))
        assert (await call.read()).text == text
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_a_two_way_stream_of_iterators(channels: Channels) -> None:
    assert [word.text async for word in channels.stub().Talk(words("a", "b", "c"))] == ["a", "b", "c"]


async def test_messages_cross_by_value(channels: Channels) -> None:
    request = Words(text="mutate")
    assert (await channels.stub().Say(request)).text == "mutate"
    assert request.text == "mutate"
    call = channels.stub().Talk()
    await call.write(request)
    request.text = "changed by the caller"
    assert (await call.read()).text == "mutate"
    call.cancel()


async def test_a_domain_error_is_restored_with_its_details(channels: Channels) -> None:
    with pytest.raises(NotFound) as caught:
        await channels.stub().Say(Words(text="not found"))
    error = caught.value
    assert (error.reason, error.message) == ("THING_NOT_FOUND", "There is no thing 7.")
    assert error.details == {"thing": 7, "names": ["a", "b"]}
    with pytest.raises(Invalid) as invalid:
        await channels.stub().Say(Words(text="faults"))
    assert invalid.value.faults == (Fault(step_id="s", field="f", message="m", reason="R"),)
    with pytest.raises(Limited) as limited:
        await channels.stub().Say(Words(text="limited"))
    assert limited.value.retry_after_s == 2.5


async def test_an_error_with_more_faults_than_fit_tells_how_many_are_left_out(channels: Channels) -> None:
    with pytest.raises(Invalid) as caught:
        await channels.stub().Say(Words(text="many faults"))
    faults, left_out = caught.value.faults, caught.value.details["faults_left_out"]
    assert len(faults) > 50
    assert len(faults) + int(str(left_out)) == 1000
    assert len(faults) * 200 < MAX_ERROR_BYTES


async def test_errors_of_streams_are_restored_after_what_was_sent(channels: Channels) -> None:
    received = []
    with pytest.raises(NotFound):
        async for word in channels.stub().Tell(Words(text="not found", list=["a"])):
            received.append(word.text)  # noqa: PERF401  # what came before the error counts
    assert received == ["a"]
    with pytest.raises(NotFound):
        await channels.stub().Gather(words("a", "not found"))
    with pytest.raises(NotFound):
        async for _ in channels.stub().Talk(words("a", "not found")):
            pass
    call = channels.stub().Talk()
    await call.write(Words(text="not found"))
    with pytest.raises(NotFound):
        await call.read()


async def test_an_unexpected_error_tells_the_caller_a_reference_and_nothing_else(channels: Channels) -> None:
    with pytest.raises(Internal) as caught:
        await channels.stub().Say(Words(text="boom"))
    assert "secret inside" not in caught.value.message
    assert str(caught.value.details["reference"]) in caught.value.message


async def test_an_abort_of_a_handler_keeps_its_status_and_metadata(channels: Channels) -> None:
    call = channels.stub().Say(Words(text="abort"))
    with pytest.raises(MillraceError, match="not now"):
        await call
    assert await call.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert (await call.trailing_metadata())["why"] == "because"


async def test_metadata_travels_both_ways(channels: Channels) -> None:
    answer = await channels.stub().Say(Words(text="metadata"), metadata=(("colour", "red"),))
    assert list(answer.list) == ["colour=red"]
    call = channels.stub().Say(Words(text="trailing"))
    await call
    assert (await call.trailing_metadata())["seen"] == "yes"


async def test_a_deadline_ends_the_call_on_both_sides(channels: Channels) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        await channels.stub().Say(Words(text="wait"), timeout=0.05)
    assert caught.value.reason == "CALL_TIMED_OUT"
    await eventually(lambda: channels.echo.seen == ["cancelled"])
    with pytest.raises(DeadlineExceeded):
        async for _ in channels.stub().Tell(Words(text="wait"), timeout=0.05):
            pass
    assert (await channels.stub().Say(Words(text="deadline"))).text == "yes"


async def test_a_cancelled_caller_cancels_the_handler(channels: Channels) -> None:
    task = asyncio.ensure_future(channels.stub().Say(Words(text="wait")))
    await eventually(lambda: channels.echo.waiting)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: channels.echo.seen == ["cancelled"])


async def test_a_cancelled_call_cancels_the_handler(channels: Channels) -> None:
    call = channels.stub().Tell(Words(text="wait"))
    await eventually(lambda: channels.echo.waiting)
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.read()
    assert call.cancelled()
    await eventually(lambda: channels.echo.seen == ["cancelled"])


async def test_a_stream_that_nobody_holds_any_more_is_cancelled(channels: Channels) -> None:
    async for word in channels.stub().Tell(Words(text="wait", list=["a"])):
        assert word.text == "a"
        break
    await eventually(lambda: channels.echo.seen == ["cancelled"])


async def test_a_failing_iterator_of_requests_ends_the_call(channels: Channels) -> None:
    async def requests() -> AsyncIterator[Any]:
        yield Words(text="a")
        raise ValueError("no more")

    with pytest.raises(asyncio.CancelledError):
        await channels.stub().Gather(requests())


async def test_the_handler_learns_who_calls(channels: Channels) -> None:
    stub = channels.stub()
    assert (await stub.Say(Words(text="caller"))).text == "service:tester:None:[]"
    with acting_as(USER):
        assert (await stub.Say(Words(text="caller"))).text == "user:u1:p1:[4, 5]"
        assert [word.text async for word in stub.Tell(Words(text="caller"))] == ["user:u1:p1:[4, 5]"]
        assert [word.text async for word in stub.Talk(words("caller"))] == ["user:u1:p1:[4, 5]"]
    assert (await stub.Say(Words(text="caller"))).text == "service:tester:None:[]"


async def test_an_identity_signed_with_another_key_is_refused(channels: Channels) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await channels.stub(USER, key=b"x" * 32).Say(Words(text="caller"))
    assert caught.value.reason == "CALLER_INVALID"


PEOPLE = {
    "nobody": ANONYMOUS,
    "service": Caller("service", "flows"),
    "user": Caller("user", "u1"),
    "reader": Caller("user", "u1", "p1", frozenset({4})),
    "writer": Caller("user", "u1", "p1", frozenset({5})),
    "homeless reader": Caller("user", "u1", None, frozenset({4})),
    "forger": Caller("user", "u1", "p1", frozenset({0, 1, 2, 3})),
}


@pytest.mark.parametrize(
    ("method", "admitted", "refused"),
    [
        ("Say", PEOPLE.keys(), {}),
        ("Internal", {"service"}, {name: Denied for name in PEOPLE if name != "service"}),
        ("Self", PEOPLE.keys() - {"nobody", "service"}, {"nobody": Unauthenticated, "service": Denied}),
        (
            "ReadFlow",
            {"reader"},
            {name: Unauthenticated if name == "nobody" else Denied for name in PEOPLE if name != "reader"},
        ),
    ],
)
async def test_permissions(channels: Channels, method: str, admitted: set[str], refused: dict[str, Any]) -> None:
    for name in admitted:
        assert (await getattr(channels.stub(PEOPLE[name]), method)(Words(text="in"))).text == "in", name
    for name, error in refused.items():
        with pytest.raises(error):
            await getattr(channels.stub(PEOPLE[name]), method)(Words(text="in"))


async def test_permissions_of_streams(channels: Channels) -> None:
    assert [word.text async for word in channels.stub(PEOPLE["reader"]).ReadFlows(Words(text="in"))] == ["in"]
    with pytest.raises(Denied):
        await channels.stub(PEOPLE["writer"]).ReadFlows(Words(text="in")).read()


async def test_a_server_that_is_away_is_unavailable(channels: Channels) -> None:
    stub = channels.stub()
    assert (await stub.Say(Words(text="here"))).text == "here"
    await channels.server.stop(0)
    await channels.server.close(0)
    with pytest.raises(Unavailable) as caught:
        await stub.Say(Words(text="away"))
    assert caught.value.reason == "SERVICE_AWAY"
    assert caught.value.retry_after_s == 1
    assert "echo" in caught.value.message


async def test_a_read_is_tried_again_and_a_write_is_not(channels: Channels) -> None:
    stub = channels.stub()
    channels.server.serving = False
    if channels.kind == "socket":
        await channels.server.stop(0)
        await channels.server.close(0)
    reading = asyncio.ensure_future(stub.GetWords(Words(text="read")))
    with pytest.raises(Unavailable):
        await stub.Say(Words(text="write"))
    channels.server.serving = True
    if channels.kind == "socket":
        await channels.server.start()
    assert (await reading).text == "read"


async def test_an_unknown_method_is_told(channels: Channels) -> None:
    say = channels.channel().unary_unary(
        "/millrace.echo.v1.EchoService/Unknown",
        request_serializer=Words.SerializeToString,
        response_deserializer=Words.FromString,
    )
    with pytest.raises(Internal) as caught:
        await say(Words(text="x"))
    assert caught.value.reason == "RPC_UNKNOWN"
