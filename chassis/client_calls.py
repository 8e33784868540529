"""Calls as domain code meets them: over sockets and in process alike, an error is a MillraceError again.

Decides: how a failed call becomes an error; which calls are tried again (reads, when the service did not answer);
that a call nobody holds any more is cancelled.
Leaves: identity, deadlines and addresses to `client`; the calls themselves to grpc.aio and `inprocess`.
Holds: a call that may have taken effect is never repeated here; an error that a domain raised is believed, not retried.
"""

import asyncio
import random
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator
from typing import Generic, TypeVar, cast

import grpc
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata

from chassis.errors import (
    ERROR_METADATA_KEY,
    DeadlineExceeded,
    Internal,
    MillraceError,
    TooLarge,
    Unavailable,
    from_metadata,
    from_status,
)

Req = TypeVar("Req")
Res = TypeVar("Res")
Raw = TypeVar("Raw", bound=grpc.aio.Call)

SERVICE_AWAY = "SERVICE_AWAY"
RETRY_PAUSES_S = (0.05, 0.15, 0.4)
"""Pauses before a read is tried again, each shortened by chance to spread callers; all within the call's deadline."""


def restored(error: AioRpcError, service: str) -> MillraceError:
    """The error that the service raised; else one that tells what the transport met."""
    for key, value in error.trailing_metadata() or ():
        if key == ERROR_METADATA_KEY and isinstance(value, bytes):
            original = from_metadata(value)
            if original is not None:
                return original
    code = error.code()
    if code is StatusCode.UNAVAILABLE:
        return Unavailable(
            SERVICE_AWAY,
            f"The {service} service does not answer. Try again in a moment; if it stays so, see whether it runs.",
            retry_after_s=1,
        )
    if code is StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(
            "CALL_TIMED_OUT", f"The {service} service did not answer in time. Whether the call took effect is unknown."
        )
    if code is StatusCode.CANCELLED:
        return Unavailable(
            "CALL_CANCELLED", f"The {service} service ended the call. Try again in a moment.", retry_after_s=1
        )
    if code is StatusCode.RESOURCE_EXHAUSTED:
        return TooLarge("MESSAGE_TOO_LARGE", f"A message to or from the {service} service is too large.")
    if code is StatusCode.UNIMPLEMENTED:
        return Internal(
            "RPC_UNKNOWN",
            f"The {service} service does not know this call. Is it an older version? Update all processes.",
        )
    return from_status(code, error.details() or "")


class RestoringCall(Generic[Raw], grpc.aio.Call):
    """What all kinds of calls share: everything but the results comes from the call underneath."""

    def __init__(self, call: Raw, service: str) -> None:
        self._call = call
        self._service = service

    def __del__(self) -> None:
        """Nobody can take the answer any more: the handler need not go on (grpc.aio does so by itself)."""
        if not self._call.done():
            self._call.cancel()

    def cancelled(self) -> bool:
        return self._call.cancelled()

    def done(self) -> bool:
        return self._call.done()

    def time_remaining(self) -> float | None:
        return self._call.time_remaining()

    def cancel(self) -> bool:
        return self._call.cancel()

    def add_done_callback(self, callback: Callable[[object], None]) -> None:
        self._call.add_done_callback(callback)

    async def initial_metadata(self) -> Metadata:
        return await self._call.initial_metadata()

    async def trailing_metadata(self) -> Metadata:
        return await self._call.trailing_metadata()

    async def code(self) -> StatusCode:
        return await self._call.code()

    async def details(self) -> str:
        return await self._call.details()

    async def wait_for_connection(self) -> None:
        try:
            await self._call.wait_for_connection()
        except AioRpcError as error:
            raise restored(error, self._service) from None


class StreamedResponses(RestoringCall[Raw], Generic[Raw, Res]):
    """Responses, iterated or read, for both kinds of calls that have many."""

    _responses: AsyncIterator[Res] | None = None

    def __aiter__(self) -> AsyncIterator[Res]:
        return self

    async def __anext__(self) -> Res:
        if self._responses is None:  # not by read(): grpc.aio refuses to mix both styles in one call
            self._responses = cast("AsyncIterable[Res]", self._call).__aiter__()
        try:
            return await self._responses.__anext__()
        except AioRpcError as error:
            raise restored(error, self._service) from None

    async def read(self) -> object | Res:
        try:
            return await cast("grpc.aio.UnaryStreamCall[object, Res]", self._call).read()
        except AioRpcError as error:
            raise restored(error, self._service) from None


class UnaryUnary(RestoringCall[grpc.aio.UnaryUnaryCall[Req, Res]], grpc.aio.UnaryUnaryCall[Req, Res]):
    """One request, one response; `again` starts the call anew with the given seconds to its deadline, for reads."""

    def __init__(
        self,
        call: grpc.aio.UnaryUnaryCall[Req, Res],
        service: str,
        again: Callable[[float | None], grpc.aio.UnaryUnaryCall[Req, Res]] | None,
    ) -> None:
        self._call = call
        self._service = service
        self._again = again

    def __await__(self) -> Generator[None, None, Res]:
        try:
            return (yield from self._call.__await__())
        except AioRpcError as error:
            failure = restored(error, self._service)
        if self._again is None or failure.reason != SERVICE_AWAY:
            raise failure
        return (yield from self._retry(failure).__await__())

    async def _retry(self, failure: MillraceError) -> Res:
        again = cast("Callable[[float | None], grpc.aio.UnaryUnaryCall[Req, Res]]", self._again)
        loop = asyncio.get_running_loop()
        remaining = self._call.time_remaining()
        deadline = None if remaining is None else loop.time() + remaining
        for pause_s in RETRY_PAUSES_S:
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311  # spreads callers, guards nothing
            left_s = None if deadline is None else deadline - loop.time()
            if left_s is not None and left_s <= 0:
                break
            self._call = again(left_s)
            try:
                return await self._call
            except AioRpcError as error:
                failure = restored(error, self._service)
                if failure.reason != SERVICE_AWAY:
                    break
        raise failure


class StreamUnary(RestoringCall[grpc.aio.StreamUnaryCall[Req, Res]], grpc.aio.StreamUnaryCall[Req, Res]):
    """Many requests, one response."""

    def __await__(self) -> Generator[None, None, Res]:
        try:
            return (yield from self._call.__await__())
        except AioRpcError as error:
            failure = restored(error, self._service)
        raise failure

    async def write(self, request: Req) -> None:
        try:
            await self._call.write(request)
        except AioRpcError as error:
            raise restored(error, self._service) from None

    async def done_writing(self) -> None:
        await self._call.done_writing()


class UnaryStream(StreamedResponses[grpc.aio.UnaryStreamCall[Req, Res], Res], grpc.aio.UnaryStreamCall[Req, Res]):
    """One request, many responses."""


class StreamStream(StreamedResponses[grpc.aio.StreamStreamCall[Req, Res], Res], grpc.aio.StreamStreamCall[Req, Res]):
    """Many requests, many responses."""

    async def write(self, request: Req) -> None:
        try:
            await self._call.write(request)
        except AioRpcError as error:
            raise restored(error, self._service) from None

    async def done_writing(self) -> None:
        await self._call.done_writing()
