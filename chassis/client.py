"""Channels to services: what generated stubs are made with.

Decides: that every call carries its caller's signed identity and every unary call a deadline; which methods are reads
(`Get…`, `List…`, `Batch…`, `Await…`, `Resolve…`) and may be tried again; sizes, keepalive and TLS of the connection.
Leaves: what an error becomes and when to retry to `client_calls`; addresses and keys to `settings` and `lifecycle`.
Measured: one wrapper object a call instead of grpc.aio interceptors, which start a task for each call.
Reads are retried here and not by gRPC's service configuration: that one would also repeat what a domain refused.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

import grpc
from grpc import ChannelConnectivity
from grpc.aio import Metadata

from chassis import client_calls
from chassis.errors import StartRefused
from chassis.identity import CALLER_METADATA_KEY, Caller, Signer, outgoing_caller
from chassis.inprocess_calls import Requests
from chassis.inprocess_context import Pairs
from chassis.settings import ServiceSettings

Req = TypeVar("Req")
Res = TypeVar("Res")
Raw = TypeVar("Raw")
Serializer = Callable[[Req], bytes]
Deserializer = Callable[[bytes], Res]

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
READS = ("Get", "List", "Batch", "Await", "Resolve")

COMMON_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 64 * 1024),
    ("grpc.absolute_max_metadata_size", 64 * 1024),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
_CLIENT_OPTIONS = (
    *COMMON_OPTIONS,
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),  # services of one installation are never behind the proxy that pieces may use
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


def open_channel(address: str, settings: ServiceSettings) -> grpc.aio.Channel:
    """A bare channel to `unix:/path` or `host:port`; with TLS when the settings have certificates and it is TCP."""
    credentials = None if address.startswith("unix:") else client_credentials(settings)
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=_CLIENT_OPTIONS)
    return grpc.aio.secure_channel(address, credentials, options=_CLIENT_OPTIONS)


def client_credentials(settings: ServiceSettings) -> grpc.ChannelCredentials | None:
    """What this process shows to servers and whom it trusts; None without TLS."""
    files = read_tls(settings)
    if files is None:
        return None
    chain, key, authority = files
    return grpc.ssl_channel_credentials(authority, key, chain)


def read_tls(settings: ServiceSettings) -> tuple[bytes, bytes, bytes] | None:
    """Certificate chain, key and authority as PEM; None when none is set. Raises: StartRefused when half are."""
    paths = (settings.tls_cert, settings.tls_key, settings.tls_ca)
    if not any(paths):
        return None
    contents = []
    for name, path in zip(("CERT", "KEY", "CA"), paths, strict=True):
        if path is None:
            raise StartRefused(f"TLS is only half set: MILLRACE_TLS_{name} is missing. Set all three or none.")
        try:
            contents.append(path.read_bytes())
        except OSError as error:
            raise StartRefused(f"MILLRACE_TLS_{name} cannot be read: {error.strerror} ({path}).") from None
    return contents[0], contents[1], contents[2]


class _Callable(Generic[Raw]):
    """A method of a service: adds identity and deadline, restores errors."""

    def __init__(self, raw: Raw, channel: "ServiceChannel", method: str) -> None:
        self._raw = raw
        self._channel = channel
        self._service = channel.service
        self._is_read = method.rpartition("/")[2].startswith(READS)


class _UnaryUnary(
    _Callable[grpc.aio.UnaryUnaryMultiCallable[Req, Res]], grpc.aio.UnaryUnaryMultiCallable[Req, Res], Generic[Req, Res]
):
    def __call__(
        self,
        request: Req,
        *,
        timeout: float | None = None,
        metadata: Pairs | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> client_calls.UnaryUnary[Req, Res]:
        signed = self._channel.signed(metadata)
        raw = self._raw

        def start(timeout_s: float | None) -> grpc.aio.UnaryUnaryCall[Req, Res]:
            return raw(request, timeout=timeout_s, metadata=signed, wait_for_ready=wait_for_ready)

        call = start(self._channel.call_timeout_s if timeout is None else timeout)
        return client_calls.UnaryUnary(call, self._service, start if self._is_read else None)


class _UnaryStream(
    _Callable[grpc.aio.UnaryStreamMultiCallable[Req, Res]],
    grpc.aio.UnaryStreamMultiCallable[Req, Res],
    Generic[Req, Res],
):
    def __call__(
        self,
        request: Req,
        *,
        timeout: float | None = None,
        metadata: Pairs | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> client_calls.UnaryStream[Req, Res]:
        call = self._raw(
            request, timeout=timeout, metadata=self._channel.signed(metadata), wait_for_ready=wait_for_ready
        )
        return client_calls.UnaryStream(call, self._service)


class _StreamUnary(
    _Callable[grpc.aio.StreamUnaryMultiCallable[Req, Res]],
    grpc.aio.StreamUnaryMultiCallable[Req, Res],
    Generic[Req, Res],
):
    def __call__(
        self,
        request_iterator: Requests[Req] | None = None,
        timeout: float | None = None,
        metadata: Pairs | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> client_calls.StreamUnary[Req, Res]:
        call = self._raw(
            request_iterator,  # type: ignore[arg-type]  # the stubs ask for an iterator, grpc.aio takes any iterable
            timeout=timeout,
            metadata=self._channel.signed(metadata),
            wait_for_ready=wait_for_ready,
        )
        return client_calls.StreamUnary(call, self._service)


class _StreamStream(
    _Callable[grpc.aio.StreamStreamMultiCallable[Req, Res]],
    grpc.aio.StreamStreamMultiCallable[Req, Res],
    Generic[Req, Res],
):
    def __call__(
        self,
        request_iterator: Requests[Req] | None = None,
        timeout: float | None = None,
        metadata: Pairs | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> client_calls.StreamStream[Req, Res]:
        call = self._raw(
            request_iterator,  # type: ignore[arg-type]  # as in _StreamUnary
            timeout=timeout,
            metadata=self._channel.signed(metadata),
            wait_for_ready=wait_for_ready,
        )
        return client_calls.StreamStream(call, self._service)


class ServiceChannel(grpc.aio.Channel):
    """A channel to one service, over a bare channel: a socket's or the in-process one.

    `caller` is the service that calls; `call_timeout_s` the deadline of unary calls that set none. Streams have none.
    """

    def __init__(
        self, bare: grpc.aio.Channel, *, service: str, caller: Caller, signer: Signer, call_timeout_s: float
    ) -> None:
        self.service = service
        self.call_timeout_s = call_timeout_s
        self._bare = bare
        self._caller = caller
        self._text = signer.text

    def signed(self, metadata: Pairs | None) -> Metadata | tuple[tuple[str, str | bytes], ...]:
        """The metadata of a call that starts now."""
        own = (CALLER_METADATA_KEY, self._text(outgoing_caller(self._caller)))
        return (own,) if metadata is None else (*metadata, own)

    def unary_unary(
        self,
        method: str,
        request_serializer: Serializer[Req] | None = None,
        response_deserializer: Deserializer[Res] | None = None,
        _registered_method: bool | None = False,
    ) -> grpc.aio.UnaryUnaryMultiCallable[Req, Res]:
        raw = self._bare.unary_unary(method, request_serializer, response_deserializer)
        return _UnaryUnary(raw, self, method)

    def unary_stream(
        self,
        method: str,
        request_serializer: Serializer[Req] | None = None,
        response_deserializer: Deserializer[Res] | None = None,
        _registered_method: bool | None = False,
    ) -> grpc.aio.UnaryStreamMultiCallable[Req, Res]:
        raw = self._bare.unary_stream(method, request_serializer, response_deserializer)
        return _UnaryStream(raw, self, method)

    def stream_unary(
        self,
        method: str,
        request_serializer: Serializer[Req] | None = None,
        response_deserializer: Deserializer[Res] | None = None,
        _registered_method: bool | None = False,
    ) -> grpc.aio.StreamUnaryMultiCallable[Req, Res]:
        raw = self._bare.stream_unary(method, request_serializer, response_deserializer)
        return _StreamUnary(raw, self, method)

    def stream_stream(
        self,
        method: str,
        request_serializer: Serializer[Req] | None = None,
        response_deserializer: Deserializer[Res] | None = None,
        _registered_method: bool | None = False,
    ) -> grpc.aio.StreamStreamMultiCallable[Req, Res]:
        raw = self._bare.stream_stream(method, request_serializer, response_deserializer)
        return _StreamStream(raw, self, method)

    async def close(self, grace: float | None = None) -> None:
        await self._bare.close(grace)

    def get_state(self, try_to_connect: bool = False) -> ChannelConnectivity:
        return self._bare.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: ChannelConnectivity) -> None:
        await self._bare.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._bare.channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.close()
