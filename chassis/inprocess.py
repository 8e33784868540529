"""The in-process channel: generated stubs and servicers of one process meet without a socket.

Decides: that a call inside the process behaves as over a socket (each handler in a task of its own with the server's
context, deadlines, cancellation both ways, metadata, status codes, flow control), about 50 times cheaper.
Leaves: the life of a call to `inprocess_calls`; identity, permissions, rules and errors to the handlers' `guard`,
restoring errors to `client`: the same as for sockets. Message size limits and compression mean nothing here.
Holds: messages cross by value: neither side ever sees a change that the other makes after handing one over.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self

import grpc
from grpc import ChannelConnectivity

from chassis.inprocess_calls import (
    Req,
    Requests,
    Res,
    Servant,
    StreamStream,
    StreamUnary,
    UnaryStream,
    UnaryUnary,
)
from chassis.inprocess_context import Pairs

Serializer = Callable[[Req], bytes]
Deserializer = Callable[[bytes], Res]


class _Callable(Generic[Req, Res]):
    """A method of a servant."""

    def __init__(self, servant: Servant, path: str) -> None:
        self._servant, self._path = servant, path


class _UnaryUnaryCallable(_Callable[Req, Res], grpc.aio.UnaryUnaryMultiCallable[Req, Res]):
    def __call__(
        self,
        request: Req,
        *,
        timeout: float | None = None,
        metadata: Pairs | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> UnaryUnary[Req, Res]:
        return UnaryUnary(self._servant, self._path, request, metadata, timeout)


class _UnaryStreamCallable(_Callable[Req, Res], grpc.aio.UnaryStreamMultiCallable[Req, Res]):
    def __call__(
        self,
        request: Req,
        *,
        timeout: float | None = None,
        metadata: Pairs | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> UnaryStream[Req, Res]:
        return UnaryStream(self._servant, self._path, request, metadata, timeout)


class _StreamUnaryCallable(_Callable[Req, Res], grpc.aio.StreamUnaryMultiCallable[Req, Res]):
    def __call__(
        self,
        request_iterator: Requests[Req] | None = None,
        timeout: float | None = None,
        metadata: Pairs | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> StreamUnary[Req, Res]:
        return StreamUnary(self._servant, self._path, request_iterator, metadata, timeout)


class _StreamStreamCallable(_Callable[Req, Res], grpc.aio.StreamStreamMultiCallable[Req, Res]):
    def __call__(
        self,
        request_iterator: Requests[Req] | None = None,
        timeout: float | None = None,
        metadata: Pairs | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> StreamStream[Req, Res]:
        return StreamStream(self._servant, self._path, request_iterator, metadata, timeout)


class InProcessChannel(grpc.aio.Channel):
    """A channel to a server of this process. Closing it ends nothing: calls belong to who makes them."""

    def __init__(self, servant: Servant) -> None:
        self._servant = servant

    def unary_unary(
        self,
        method: str,
        request_serializer: Serializer[Req] | None = None,
        response_deserializer: Deserializer[Res] | None = None,
        _registered_method: bool | None = False,
    ) -> grpc.aio.UnaryUnaryMultiCallable[Req, Res]:
        return _UnaryUnaryCallable(self._servant, method)

    def unary_stream(
        self,
        method: str,
        request_serializer: Serializer[Req] | None = None,
        response_deserializer: Deserializer[Res] | None = None,
        _registered_method: bool | None = False,
    ) -> grpc.aio.UnaryStreamMultiCallable[Req, Res]:
        return _UnaryStreamCallable(self._servant, method)

    def stream_unary(
        self,
        method: str,
        request_serializer: Serializer[Req] | None = None,
        response_deserializer: Deserializer[Res] | None = None,
        _registered_method: bool | None = False,
    ) -> grpc.aio.StreamUnaryMultiCallable[Req, Res]:
        return _StreamUnaryCallable(self._servant, method)

    def stream_stream(
        self,
        method: str,
        request_serializer: Serializer[Req] | None = None,
        response_deserializer: Deserializer[Res] | None = None,
        _registered_method: bool | None = False,
    ) -> grpc.aio.StreamStreamMultiCallable[Req, Res]:
        return _StreamStreamCallable(self._servant, method)

    async def close(self, grace: float | None = None) -> None:
        """Nothing to close."""

    def get_state(self, try_to_connect: bool = False) -> ChannelConnectivity:
        """READY while the server takes calls."""
        return ChannelConnectivity.READY if self._servant.serving else ChannelConnectivity.SHUTDOWN

    async def wait_for_state_change(self, last_observed_state: ChannelConnectivity) -> None:
        """Returns at once: there is no connection whose state could be waited for."""

    async def channel_ready(self) -> None:
        """Returns at once."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        return None
