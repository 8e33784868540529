"""The calls of the in-process channel, as a client holds them.

Decides: when a call is over and with which status, what each side waits for, who is woken; bounds of a stream's queue.
Leaves: what a handler may ask and say to `inprocess_context`; finding the handler's server and the shape that
generated stubs expect to `inprocess`.
Holds: the first end counts (answer, error, deadline, cancel); after it nobody waits and no handler keeps running.
"""

import asyncio
import contextvars
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Generator, Iterable
from typing import Generic, Protocol, TypeVar, cast

import grpc
import structlog
from google.protobuf.message import Message
from grpc import StatusCode
from grpc.aio import EOF, AbortError, AioRpcError, Metadata

from chassis.guard import Handler, StreamHandler, UnaryHandler
from chassis.inprocess_context import HandlerContext, Pairs

Req = TypeVar("Req")
Res = TypeVar("Res")
T = TypeVar("T")
Requests = AsyncIterable[Req] | Iterable[Req]

_PIPE_ITEMS = 16
"""Messages that may wait in one direction of a stream before its writer waits (sockets bound bytes instead)."""

_log = structlog.get_logger("chassis.inprocess")


class Servant(Protocol):
    """What the channel needs of a server: handlers by path, whether it still takes calls, and the calls under way."""

    handlers: dict[str, Handler]
    serving: bool
    context: contextvars.Context
    calls: "set[asyncio.Task[None]]"


def _copy(message: T) -> T:
    duplicate = type(message)()
    duplicate.CopyFrom(message)  # type: ignore[attr-defined]  # T is a protobuf message; the stubs leave it unbounded
    return duplicate


class _Pipe(Generic[T]):
    """One direction of a stream: one writer, one reader, bounded."""

    __slots__ = ("_closed", "_items", "_reader", "_writer")

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._closed = False
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    async def put(self, item: T) -> bool:
        """Hands an item over, waiting for room; False when nobody will read it."""
        while len(self._items) >= _PIPE_ITEMS and not self._closed:
            self._writer = asyncio.get_running_loop().create_future()
            await self._writer
        if self._closed:
            return False
        self._items.append(item)
        _wake(self._reader)
        return True

    async def get(self) -> object:
        """The next item, EOF when there will be none."""
        while not self._items:
            if self._closed:
                return EOF
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        _wake(self._writer)
        return self._items.popleft()

    def close(self, *, drop: bool = False) -> None:
        """No more items; with `drop`, those not yet read are gone as well."""
        self._closed = True
        if drop:
            self._items.clear()
        _wake(self._reader)
        _wake(self._writer)


def _wake(waiter: "asyncio.Future[None] | None") -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


class _RequestStream(Generic[Req]):
    """The iterator of requests that a handler reads."""

    def __init__(self, pipe: _Pipe[Req]) -> None:
        self._pipe = pipe

    def __aiter__(self) -> AsyncIterator[Req]:
        return self

    async def __anext__(self) -> Req:
        item = await self._pipe.get()
        if item is EOF:
            raise StopAsyncIteration
        return cast(Req, item)


class _Call(Generic[Req, Res], grpc.aio.Call):
    """A call as the client holds it; the subclasses add how requests go in and responses come out."""

    def __init__(self, servant: Servant, path: str, metadata: Pairs | None, timeout: float | None) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self.metadata: tuple[tuple[str, str | bytes], ...] = tuple(metadata or ())
        self.deadline = None if timeout is None else loop.time() + timeout
        self._finished: asyncio.Future[None] = loop.create_future()
        self._initial: asyncio.Future[None] | None = None
        self._callbacks: list[Callable[[object], None]] = []
        self._status: StatusCode | None = None
        self._details = ""
        self._cancelled = False
        self.initial: Pairs | None = None
        self.trailing: Pairs = ()
        self.context = HandlerContext(self)
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        handler = servant.handlers.get(path)
        if not servant.serving:
            self.finish(StatusCode.UNAVAILABLE, "The server is starting or stopping")
        elif handler is None:
            self.finish(StatusCode.UNIMPLEMENTED, f"Method not found: {path}")
        elif timeout is not None and timeout <= 0:
            self.finish(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        else:
            self._task = loop.create_task(self._run(servant, handler), context=servant.context.copy())
            servant.calls.add(self._task)
            if timeout is not None:
                self._timer = loop.call_later(timeout, self._expire)

    async def _run(self, servant: Servant, handler: Handler) -> None:
        try:
            await self._handle(handler)
        except AbortError:
            self.finish(self.context.status or StatusCode.UNKNOWN, self.context.text)
        except asyncio.CancelledError:
            self.finish(StatusCode.UNAVAILABLE, "The server is shutting down")
        except Exception as error:  # noqa: BLE001  # logged, and the call ends with it
            _log.exception("rpc ended with an error outside its guard", exc_info=error)
            self.finish(StatusCode.UNKNOWN, f"Unexpected {type(error).__name__}")
        else:
            self.finish(self.context.status or StatusCode.OK, self.context.text)
        finally:
            servant.calls.discard(cast("asyncio.Task[None]", self._task))

    @abstractmethod
    async def _handle(self, handler: Handler) -> None:
        """Runs the handler and takes what it answers."""

    def _closed(self, *, dropped: bool) -> None:
        """The call is over; `dropped`: the client will not take what has not reached it."""

    def finish(self, status: StatusCode, details: str) -> None:
        """Ends the call with a status; only the first one counts."""
        if self._status is not None:
            return
        self._status, self._details = status, details
        self._closed(dropped=status is StatusCode.CANCELLED or status is StatusCode.DEADLINE_EXCEEDED)
        if self._timer is not None:
            self._timer.cancel()
        _wake(self._initial)
        _wake(self._finished)
        for callback in self._callbacks:
            callback(self)
        self.context.finished()

    def _expire(self) -> None:
        self.finish(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        if self._task is not None:
            self._task.cancel()

    def started_answering(self, metadata: Pairs = ()) -> None:
        """The initial metadata is out, empty when the handler sent none before its first response."""
        if self.initial is None:
            self.initial = metadata
            _wake(self._initial)

    def failure(self) -> BaseException:
        """What awaiting or reading a call that did not end well raises."""
        if self._cancelled:
            return asyncio.CancelledError()
        return AioRpcError(
            self._status or StatusCode.UNKNOWN,
            Metadata(*(self.initial or ())),
            Metadata(*self.trailing),
            details=self._details,
        )

    def cancel(self) -> bool:
        if self._status is not None or self._loop.is_closed():
            return False
        self._cancelled = True
        self.finish(StatusCode.CANCELLED, "Locally cancelled by application!")
        if self._task is not None:
            self._task.cancel()
        return True

    def cancelled(self) -> bool:
        return self._status is StatusCode.CANCELLED

    def done(self) -> bool:
        return self._status is not None

    def time_remaining(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - self._loop.time())

    def add_done_callback(self, callback: Callable[[object], None]) -> None:
        if self._status is not None:
            callback(self)
        else:
            self._callbacks.append(callback)

    async def initial_metadata(self) -> Metadata:
        while self.initial is None and self._status is None:
            if self._initial is None or self._initial.done():
                self._initial = self._loop.create_future()
            await asyncio.shield(self._initial)
        return Metadata(*(self.initial or ()))

    async def _end(self) -> None:
        if self._status is None:
            await asyncio.shield(self._finished)

    async def trailing_metadata(self) -> Metadata:
        await self._end()
        return Metadata(*self.trailing)

    async def code(self) -> StatusCode:
        await self._end()
        return cast(StatusCode, self._status)

    async def details(self) -> str:
        await self._end()
        return self._details

    async def wait_for_connection(self) -> None:
        """There is none to wait for."""

    async def next_request(self) -> object:
        """The next request of a stream, EOF after the last."""
        raise grpc.aio.UsageError("This RPC takes one request, not a stream.")

    async def respond(self, response: Message) -> None:
        """Sends one response of a stream, waiting while the client is slow."""
        raise grpc.aio.UsageError("This RPC gives one response, not a stream.")


class _UnaryResponse(_Call[Req, Res]):
    """One response, awaited."""

    _response: Res

    def __await__(self) -> Generator[None, None, Res]:
        if self._status is None:
            try:
                yield from self._finished
            except asyncio.CancelledError:
                self.cancel()
                raise
        if self._status is not StatusCode.OK:
            raise self.failure()
        return self._response

    async def _answer(self, response: Awaitable[Message]) -> None:
        self._response = cast(Res, _copy(await response))
        self.started_answering()


class _StreamResponse(_Call[Req, Res]):
    """Many responses, iterated or read."""

    def __init__(self, servant: Servant, path: str, metadata: Pairs | None, timeout: float | None) -> None:
        self.responses: _Pipe[Res] = _Pipe()
        super().__init__(servant, path, metadata, timeout)

    def _closed(self, *, dropped: bool) -> None:
        super()._closed(dropped=dropped)
        self.responses.close(drop=dropped)

    async def respond(self, response: Message) -> None:
        self.started_answering()
        await self.responses.put(cast(Res, _copy(response)))

    async def read(self) -> object | Res:
        try:
            item = await self.responses.get()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if item is EOF and self._status is not StatusCode.OK:
            raise self.failure()
        return item

    def __aiter__(self) -> AsyncIterator[Res]:
        return self

    async def __anext__(self) -> Res:
        item = await self.read()
        if item is EOF:
            raise StopAsyncIteration
        return cast(Res, item)

    async def _answer(self, behaviour: StreamHandler | UnaryHandler, request: object) -> None:
        answers = behaviour(request, self.context)
        if isinstance(answers, AsyncIterator):
            async for response in answers:
                await self.respond(response)
        else:
            await answers  # the handler writes through its context


class _StreamRequest(_Call[Req, Res]):
    """Many requests: from an iterator, or written one by one."""

    def __init__(
        self,
        servant: Servant,
        path: str,
        requests: Requests[Req] | None,
        metadata: Pairs | None,
        timeout: float | None,
    ) -> None:
        self.requests: _Pipe[Req] = _Pipe()
        self._pump: asyncio.Task[None] | None = None
        super().__init__(servant, path, metadata, timeout)
        if requests is not None and not self.done():
            self._pump = self._loop.create_task(self._feed(requests))

    def _closed(self, *, dropped: bool) -> None:
        super()._closed(dropped=dropped)
        self.requests.close(drop=True)
        if self._pump is not None and self._pump is not asyncio.current_task():
            self._pump.cancel()

    async def _feed(self, requests: Requests[Req]) -> None:
        """Takes requests from the client's iterator; one that raises ends the call, as over a socket."""
        try:
            if isinstance(requests, AsyncIterable):
                async for request in requests:
                    if not await self.requests.put(_copy(request)):
                        return
            else:
                for request in requests:
                    if not await self.requests.put(_copy(request)):
                        return
        except Exception as error:  # noqa: BLE001  # logged, and the call ends with it
            _log.exception("the iterator of a call's requests failed", exc_info=error)
            self.cancel()
        else:
            self.requests.close()

    async def next_request(self) -> object:
        return await self.requests.get()

    async def write(self, request: Req) -> None:
        try:
            taken = not self.done() and await self.requests.put(_copy(request))
        except asyncio.CancelledError:
            self.cancel()
            raise
        if not taken:
            if self._status in {None, StatusCode.OK}:
                raise asyncio.InvalidStateError("RPC already finished.")
            raise self.failure()

    async def done_writing(self) -> None:
        self.requests.close()


class UnaryUnary(_UnaryResponse[Req, Res], grpc.aio.UnaryUnaryCall[Req, Res]):
    """One request, one response."""

    def __init__(
        self, servant: Servant, path: str, request: Req, metadata: Pairs | None, timeout: float | None
    ) -> None:
        self._request = _copy(request)
        super().__init__(servant, path, metadata, timeout)

    async def _handle(self, handler: Handler) -> None:
        await self._answer(cast(UnaryHandler, handler.unary_unary)(self._request, self.context))


class UnaryStream(_StreamResponse[Req, Res], grpc.aio.UnaryStreamCall[Req, Res]):
    """One request, many responses."""

    def __init__(
        self, servant: Servant, path: str, request: Req, metadata: Pairs | None, timeout: float | None
    ) -> None:
        self._request = _copy(request)
        super().__init__(servant, path, metadata, timeout)

    async def _handle(self, handler: Handler) -> None:
        await self._answer(cast(StreamHandler, handler.unary_stream), self._request)


class StreamUnary(_StreamRequest[Req, Res], _UnaryResponse[Req, Res], grpc.aio.StreamUnaryCall[Req, Res]):
    """Many requests, one response."""

    async def _handle(self, handler: Handler) -> None:
        await self._answer(cast(UnaryHandler, handler.stream_unary)(_RequestStream(self.requests), self.context))


class StreamStream(_StreamRequest[Req, Res], _StreamResponse[Req, Res], grpc.aio.StreamStreamCall[Req, Res]):
    """Many requests, many responses."""

    async def _handle(self, handler: Handler) -> None:
        await self._answer(cast(StreamHandler, handler.stream_stream), _RequestStream(self.requests))
