"""What a handler gets as its `context` when it is called in process.

Decides: nothing of its own: it answers and notes what a handler says, in the shape of grpc.aio.
Leaves: the life of the call to `inprocess_calls`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Never, Protocol, cast

import grpc
from google.protobuf.message import Message
from grpc import StatusCode
from grpc.aio import AbortError, Metadata

from chassis.guard import Context

Pairs = Metadata | Sequence[tuple[str, str | bytes]]


class HandledCall(Protocol):
    """What the context needs of its call."""

    metadata: tuple[tuple[str, str | bytes], ...]
    trailing: Pairs

    def started_answering(self, metadata: Pairs = ()) -> None:
        """The initial metadata is out."""

    async def next_request(self) -> object:
        """The next request of a stream, EOF after the last."""

    async def respond(self, response: Message) -> None:
        """Sends one response of a stream."""

    def time_remaining(self) -> float | None:
        """Seconds to the deadline."""

    def cancelled(self) -> bool:
        """Whether the client gave up."""

    def done(self) -> bool:
        """Whether the call is over."""


class HandlerContext(Context):
    """What a handler learns of its call and may say about its end, besides answering."""

    def __init__(self, call: HandledCall) -> None:
        self._call = call
        self._callbacks: list[Callable[[Context], None]] = []
        self.status: StatusCode | None = None
        self.text = ""

    def finished(self) -> None:
        """The call is over."""
        for callback in self._callbacks:
            callback(self)

    def invocation_metadata(self) -> Metadata | None:
        return self._call.metadata  # type: ignore[return-value]  # grpc.aio hands out a tuple of pairs here as well

    async def abort(self, code: StatusCode, details: str = "", trailing_metadata: Pairs = ()) -> Never:
        self.status, self.text = code, details
        if trailing_metadata:
            self._call.trailing = trailing_metadata
        raise AbortError("Locally aborted.")

    async def abort_with_status(self, status: grpc.Status) -> Never:
        await self.abort(status.code, status.details, tuple(status.trailing_metadata or ()))

    async def read(self) -> Message:
        return cast(Message, await self._call.next_request())

    async def write(self, message: Message) -> None:
        await self._call.respond(message)

    async def send_initial_metadata(self, initial_metadata: Pairs) -> None:
        self._call.started_answering(initial_metadata)

    def set_trailing_metadata(self, trailing_metadata: Pairs) -> None:
        self._call.trailing = trailing_metadata

    def trailing_metadata(self) -> Metadata:
        return self._call.trailing  # type: ignore[return-value]  # as grpc.aio: what was set

    def set_code(self, code: StatusCode) -> None:
        self.status = code

    def set_details(self, details: str) -> None:
        self.text = details

    def code(self) -> StatusCode:
        return self.status or StatusCode.OK

    def details(self) -> str:
        return self.text

    def set_compression(self, compression: grpc.Compression) -> None:
        """Nothing is compressed inside a process."""

    def disable_next_message_compression(self) -> None:
        """Nothing is compressed inside a process."""

    def peer(self) -> str:
        return "inprocess:"

    def peer_identities(self) -> Iterable[bytes] | None:
        return None

    def peer_identity_key(self) -> str | None:
        return None

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return {}

    def time_remaining(self) -> float:
        return cast(float, self._call.time_remaining())

    def cancelled(self) -> bool:
        return self._call.cancelled()

    def done(self) -> bool:
        return self._call.done()

    def add_done_callback(self, callback: Callable[[Context], None]) -> None:
        self._callbacks.append(callback)
