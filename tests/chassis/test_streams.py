"""Batched calls over standing streams: answered once or raised, gathered, bounded, mended after a break."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from chassis.errors import Unavailable
from chassis.streams import BatchedCalls, BatchedSends, answer_in_batches, until
from tests.chassis.conftest import Channels
from tests.chassis.echo import Echo, pb


class Batches:
    """The server's side: answers items with `handle`, notes the size of each message."""

    def __init__(self, echo: Echo) -> None:
        self.messages: list[int] = []
        self.responses: list[int] = []
        self.delivered: list[str] = []
        self.stopping = asyncio.Event()
        self.handle: Callable[[Any], Any] = lambda item: pb.Item(sequence=item.sequence, text=item.text.upper())
        self.limit = 4096
        echo.Batch = self.batch
        echo.Deliver = self.deliver

    async def batch(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for response in answer_in_batches(
            requests,
            self._items,
            lambda item: self.handle(item),
            self._response,
            on_error=lambda item, error: pb.Item(sequence=item.sequence, text=f"failed: {error}"),
            stopping=self.stopping,
            limit=self.limit,
        ):
            yield response

    def _items(self, request: Any) -> Any:
        self.messages.append(len(request.items))
        return request.items

    def _response(self, answers: Any) -> Any:
        self.responses.append(len(answers))
        return pb.Items(items=answers)

    async def deliver(self, requests: AsyncIterator[Any], context: Any) -> Any:
        async for request in requests:
            self.delivered.extend(item.text for item in request.items)
        return pb.Words()


@pytest.fixture
def batches(channels: Channels) -> Batches:
    made = Batches(channels.echo)
    # the servicer's methods were taken when the server was made: register again with the ones above
    from tests.chassis.echo import add_to_server

    add_to_server(channels.echo, channels.server)
    return made


@pytest.fixture
async def restarted(channels: Channels, batches: Batches) -> Channels:
    """The server with the methods of `batches` also on its socket."""
    if channels.kind == "socket":
        await channels.server.stop(0)
        await channels.server.start()
    return channels


def calls(channels: Channels, **options: Any) -> BatchedCalls[str, Any, Any, str]:
    return BatchedCalls(
        channels.stub().Batch,
        lambda batch: pb.Items(items=[pb.Item(sequence=sequence, text=text) for sequence, text in batch]),
        lambda response: [(item.sequence, item.text) for item in response.items],
        name="echo",
        **options,
    )


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_each_call_gets_its_own_answer(restarted: Channels, batches: Batches) -> None:
    async with calls(restarted) as stream:
        texts = [f"text {number}" for number in range(2000)]
        assert await asyncio.gather(*(stream.call(text) for text in texts)) == [text.upper() for text in texts]


async def test_what_gathers_goes_together(restarted: Channels, batches: Batches) -> None:
    async with calls(restarted) as stream:
        await stream.call("first")
        await asyncio.gather(*(stream.call(str(number)) for number in range(1000)))
    assert sum(batches.messages) == 1001
    assert len(batches.messages) <= 10
    assert len(batches.responses) <= 20


async def test_answers_may_come_in_any_order(restarted: Channels, batches: Batches) -> None:
    held: dict[str, asyncio.Future[Any]] = {}

    def handle(item: Any) -> Awaitable[Any]:
        held[item.text] = asyncio.get_running_loop().create_future()
        return held[item.text]

    batches.handle = handle
    async with calls(restarted) as stream:
        first, second = stream.call("a"), stream.call("b")
        await eventually(lambda: len(held) == 2)
        held["b"].set_result(pb.Item(sequence=2, text="b done"))
        assert await second == "b done"
        assert not first.done()
        held["a"].set_result(pb.Item(sequence=1, text="a done"))
        assert await first == "a done"


async def test_one_items_failure_is_its_own(restarted: Channels, batches: Batches) -> None:
    async def handle(item: Any) -> Any:
        if item.text == "bad":
            raise ValueError("no good")
        return pb.Item(sequence=item.sequence, text="fine")

    batches.handle = handle
    async with calls(restarted) as stream:
        answers = await asyncio.gather(stream.call("bad"), stream.call("good"))
    assert answers[0] == "failed: no good"
    assert answers[1] == "fine"


async def test_a_full_stream_refuses_with_a_time_to_come_back(restarted: Channels, batches: Batches) -> None:
    gate = asyncio.Event()

    async def handle(item: Any) -> Any:
        await gate.wait()
        return pb.Item(sequence=item.sequence)

    batches.handle = handle
    async with calls(restarted, capacity=2) as stream:
        held = [stream.call("a"), stream.call("b")]
        with pytest.raises(Unavailable, match="STREAM_FULL") as caught:
            stream.call("c")
        assert caught.value.retry_after_s
        gate.set()
        await asyncio.gather(*held)
        await stream.call("d")


async def test_a_stream_is_bounded_in_bytes_as_well(restarted: Channels, batches: Batches) -> None:
    async with calls(restarted, size_of=len, capacity_bytes=10) as stream:
        answer = stream.call("12345678")
        with pytest.raises(Unavailable, match="STREAM_FULL"):
            stream.call("123")
        await answer
        assert await stream.call("one larger than all that fits") == "ONE LARGER THAN ALL THAT FITS"


async def test_large_items_are_spread_over_messages(restarted: Channels, batches: Batches) -> None:
    async with calls(restarted, size_of=len) as stream:
        texts = ["x" * 1_500_000] * 8
        assert len(await asyncio.gather(*(stream.call(text) for text in texts))) == 8
    assert max(batches.messages) <= 2


async def test_the_server_bounds_what_is_under_way(restarted: Channels, batches: Batches) -> None:
    under_way, most = 0, 0

    async def handle(item: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return pb.Item(sequence=item.sequence)

    batches.handle, batches.limit = handle, 8
    async with calls(restarted) as stream:
        await asyncio.gather(*(stream.call("x") for _ in range(200)))
    assert most <= 8


async def test_a_break_raises_for_all_unanswered_and_the_next_calls_pass(restarted: Channels, batches: Batches) -> None:
    answered = batches.handle
    batches.handle = lambda _item: asyncio.get_running_loop().create_future()
    async with calls(restarted) as stream:
        held = [stream.call(str(number)) for number in range(3)]
        await eventually(lambda: sum(batches.messages) == 3)
        batches.stopping.set()
        if restarted.kind == "socket":
            await restarted.server.stop(0)
        else:
            for task in list(restarted.server.calls):
                task.cancel()
        results = await asyncio.gather(*held, return_exceptions=True)
        assert [getattr(result, "reason", None) for result in results] == ["STREAM_BROKEN"] * 3
        batches.handle = answered
        batches.stopping.clear()
        if restarted.kind == "socket":
            await restarted.server.start()

        async def passes() -> bool:
            try:
                return await stream.call("again") == "AGAIN"
            except Unavailable:
                return False

        async with asyncio.timeout(10):
            while not await passes():
                await asyncio.sleep(0.01)


async def test_a_stopping_server_answers_what_it_read(restarted: Channels, batches: Batches) -> None:
    gate = asyncio.Event()

    async def handle(item: Any) -> Any:
        await gate.wait()
        return pb.Item(sequence=item.sequence, text="in time")

    batches.handle = handle
    async with calls(restarted) as stream:
        held = stream.call("a")
        await eventually(lambda: batches.messages)
        batches.stopping.set()
        await asyncio.sleep(0.01)
        gate.set()
        assert await held == "in time"


async def test_a_caller_that_goes_away_harms_nobody(restarted: Channels, batches: Batches) -> None:
    async with calls(restarted) as stream:
        stream.call("a").cancel()
        assert await stream.call("b") == "B"


async def test_leaving_raises_for_who_still_waits(restarted: Channels, batches: Batches) -> None:
    batches.handle = lambda _item: asyncio.get_running_loop().create_future()
    async with calls(restarted) as stream:
        held = stream.call("a")
        await eventually(lambda: batches.messages)
    with pytest.raises(Unavailable, match="STREAM_BROKEN"):
        await held
    with pytest.raises(Unavailable, match="STREAM_BROKEN"):
        stream.call("b")


async def test_sends_arrive_in_order_and_wait_for_a_service_that_is_away(restarted: Channels, batches: Batches) -> None:
    sends: BatchedSends[str, Any, Any] = BatchedSends(
        restarted.stub().Deliver,
        lambda texts: pb.Items(items=[pb.Item(text=text) for text in texts]),
        name="echo",
        capacity=3,
    )
    for number in range(5):
        sends.send(f"early {number}")
    assert sends.dropped == 2
    async with sends:
        await eventually(lambda: len(batches.delivered) == 3)
        sends.send("later")
        await eventually(lambda: len(batches.delivered) == 4)
    assert batches.delivered == ["early 2", "early 3", "early 4", "later"]


async def test_until_ends_with_its_event_or_its_items() -> None:
    stopping = asyncio.Event()

    async def numbers(most: int) -> AsyncIterator[int]:
        for number in range(most):
            yield number
        if most == 3:
            await asyncio.Event().wait()

    assert [number async for number in until(stopping, numbers(2))] == [0, 1]
    seen = []
    async for number in until(stopping, numbers(3)):
        seen.append(number)
        if number == 2:
            stopping.set()
    assert seen == [0, 1, 2]
