"""What stands around every RPC handler, over sockets and in process alike: the one server interceptor.

Decides: the order (identity, permission, rules, handler, error); that a MillraceError becomes a status with
`millrace-error-bin`; that anything unexpected is logged with its stack and answered with a reference only.
Leaves: the wire to `server` and `inprocess`; the meaning of permissions and rules to their modules.
Holds: no handler runs for a caller that was not admitted; no request body, token or metadata reaches the log.
Wraps handlers when they are registered instead of intercepting each call: grpc.aio's interceptor chain costs a
coroutine and a handler object a call, this costs none.
"""

import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from inspect import isasyncgenfunction
from time import perf_counter
from typing import NoReturn, TypeAlias, cast

import grpc
import structlog
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from chassis import permissions
from chassis.errors import ERROR_METADATA_KEY, Internal, MillraceError, to_metadata
from chassis.identity import ANONYMOUS, CALLER_METADATA_KEY, Verifier, enter_call
from chassis.rules import rules_of

Context = grpc.aio.ServicerContext[Message, Message]
UnaryHandler = Callable[[object, Context], Awaitable[Message]]
StreamHandler = Callable[[object, Context], AsyncGenerator[Message, None]]
WritingHandler = Callable[[object, Context], Awaitable[None]]
Handler: TypeAlias = "grpc.RpcMethodHandler[Message, Message]"
Record = Callable[[str, float], None]
"""Takes the status name and the seconds of a finished call."""

_log = structlog.get_logger("chassis.guard")


class Guard:
    """Wraps the handlers of one service."""

    def __init__(self, verifier: Verifier, recorder: Callable[[str], Record] | None = None) -> None:
        self._verifier = verifier
        self._recorder = recorder or (lambda _path: lambda _status, _seconds: None)

    def wrap(self, path: str, handler: Handler) -> Handler:
        """The handler of an RPC, guarded. Raises: StartRefused when the RPC declares no permission."""
        needed = permissions.needed_permission(path)
        if needed is None:
            return handler
        behaviour = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        admit = self._admission(path, needed, check_rules=not handler.request_streaming)
        record = self._recorder(path)
        if handler.response_streaming:
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            guarded: StreamHandler | WritingHandler | UnaryHandler
            if isasyncgenfunction(behaviour):
                guarded = _guard_stream(path, cast(StreamHandler, behaviour), admit, record)
            else:
                guarded = _guard_unary(path, cast(UnaryHandler, behaviour), admit, record)
        else:
            make = (
                grpc.stream_unary_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_unary_rpc_method_handler
            )
            guarded = _guard_unary(path, cast(UnaryHandler, behaviour), admit, record)
        return make(guarded, handler.request_deserializer, handler.response_serializer)

    def _admission(self, path: str, needed: int, *, check_rules: bool) -> Callable[[object, Context], None]:
        verified = self._verifier.caller
        method = permissions.method_descriptor(path)
        GetMessageClass(
            method.input_type
        )  # a message class that is not loaded is a start error, not one of the first call
        rules = rules_of(method.input_type) if check_rules else None
        admitted = permissions.admit

        def admit(request: object, context: Context) -> None:
            caller = ANONYMOUS
            for key, value in context.invocation_metadata() or ():
                if key == CALLER_METADATA_KEY:
                    caller = verified(cast(str, value))
            enter_call(caller)
            admitted(caller, needed)
            if rules is not None:
                rules.enforce(cast(Message, request))

        return admit


def _guard_unary(
    path: str, behaviour: UnaryHandler, admit: Callable[[object, Context], None], record: Record
) -> UnaryHandler:
    async def guarded(request: object, context: Context) -> Message:
        started, status = perf_counter(), "CANCELLED"
        try:
            admit(request, context)
            response = await behaviour(request, context)
        except (grpc.aio.AbortError, grpc.aio.UsageError):
            status = "ABORTED"
            raise
        except Exception as error:  # noqa: BLE001  # the last resort of an RPC: logged with its stack, answered with a reference
            answer = _as_answer(path, error)
            status = answer.status.name
            await _refuse(context, answer)
        else:
            status = "OK"
            return response
        finally:
            record(status, perf_counter() - started)

    return guarded


def _guard_stream(
    path: str, behaviour: StreamHandler, admit: Callable[[object, Context], None], record: Record
) -> StreamHandler:
    async def guarded(request: object, context: Context) -> AsyncGenerator[Message, None]:
        started, status = perf_counter(), "CANCELLED"
        try:
            admit(request, context)
            async with aclosing(behaviour(request, context)) as responses:
                async for response in responses:
                    yield response
            status = "OK"
        except (grpc.aio.AbortError, grpc.aio.UsageError):
            status = "ABORTED"
            raise
        except Exception as error:  # noqa: BLE001  # as in _guard_unary
            answer = _as_answer(path, error)
            status = answer.status.name
            await _refuse(context, answer)
        finally:
            record(status, perf_counter() - started)

    return guarded


def _as_answer(path: str, error: Exception) -> MillraceError:
    """The error that the caller gets; what was not raised on purpose gets a reference that also stands in the log."""
    if isinstance(error, MillraceError) and not isinstance(error, Internal):
        log = _log.warning if error.http >= 500 else _log.info
        log("rpc refused", rpc=path, reason=error.reason, status=error.status.name)
        return error
    reference = secrets.token_hex(4)
    _log.error("rpc failed", rpc=path, reference=reference, exc_info=error)
    return Internal(
        "INTERNAL",
        f"Something went wrong inside Millrace. The operator finds the cause in the log under {reference}.",
        reference=reference,
    )


async def _refuse(context: Context, error: MillraceError) -> NoReturn:
    trailing = (*(context.trailing_metadata() or ()), (ERROR_METADATA_KEY, to_metadata(error)))
    await context.abort(error.status, error.message[:512], trailing)
