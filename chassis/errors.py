"""The closed family of errors, and how each looks on the wire and over HTTP.

Decides: which classes exist, their gRPC status, HTTP status and whether repeating may help; the trailing metadata that
carries an error between processes; the problem+json document (RFC 9457).
Leaves: the reasons (a domain names its own, upper snake case) and the sentences to whoever raises; catching to `guard`
(server) and `client`.
Holds: an error that crosses a process is restored as the same class with the same reason, message, faults and details.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, TypeAlias

import msgspec
from grpc import StatusCode

from chassis.refusal import StartRefused as StartRefused

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

ERROR_METADATA_KEY = "millrace-error-bin"
MAX_ERROR_BYTES = 32 * 1024
"""An error's trailing metadata stays below this; faults that do not fit are counted instead. Channels allow 64 KiB."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a request or a flow, and where: the step, the field, or both."""

    step_id: str = ""
    field: str = ""
    message: str = ""
    reason: str = ""


class MillraceError(Exception):
    """What a domain raises on purpose. `message` says what happened, to what, what to do; callers may see all of it."""

    status: ClassVar[StatusCode] = StatusCode.INTERNAL
    http: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    title: ClassVar[str] = "Something went wrong inside Millrace"

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        faults: Sequence[Fault] = (),
        retry_after_s: float | None = None,
        **details: Json,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.faults: tuple[Fault, ...] = tuple(faults)
        self.retry_after_s = retry_after_s
        self.details: dict[str, Json] = details

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class NotFound(MillraceError):
    """No such thing in the caller's project. Also the answer for things of other projects."""

    status, http, title = StatusCode.NOT_FOUND, 404, "Not found"


class Invalid(MillraceError):
    """The request cannot be right as it stands; `faults` name each field or step. Repeating it fails again."""

    status, http, title = StatusCode.INVALID_ARGUMENT, 400, "Invalid request"


class Unprocessable(MillraceError):
    """The request is well formed, but what it is about has faults; each is named. Mend them, then repeat."""

    status, http, title = StatusCode.FAILED_PRECONDITION, 422, "Faults to mend"


class Conflict(MillraceError):
    """The state does not allow it now: someone was faster, or the thing is already so. Read again, then decide."""

    status, http, title = StatusCode.ABORTED, 409, "Conflict"


class Denied(MillraceError):
    """The caller is known and may not do this."""

    status, http, title = StatusCode.PERMISSION_DENIED, 403, "Not allowed"


class Unauthenticated(MillraceError):
    """Nobody proved who they are, or the proof is no longer good. Sign in again."""

    status, http, title = StatusCode.UNAUTHENTICATED, 401, "Sign in first"


class Limited(MillraceError):
    """Too much in too little time, or no room left. The same request may pass after `retry_after_s`."""

    status, http, retryable, title = StatusCode.RESOURCE_EXHAUSTED, 429, True, "Too many requests"


class Unavailable(MillraceError):
    """Something needed is away. The same request may pass after `retry_after_s`; whether it took effect is unknown."""

    status, http, retryable, title = StatusCode.UNAVAILABLE, 503, True, "Not available right now"


class DeadlineExceeded(MillraceError):
    """The answer did not come in time; whether the request took effect is unknown."""

    status, http, retryable, title = StatusCode.DEADLINE_EXCEEDED, 504, True, "Took too long"


class TooLarge(MillraceError):
    """A body, document or message exceeds a limit that `message` names."""

    status, http, title = StatusCode.OUT_OF_RANGE, 413, "Too large"


class Internal(MillraceError):
    """A fault of Millrace itself. Carries a reference that stands in the log beside the stack; nothing else leaks."""


_FAMILY: tuple[type[MillraceError], ...] = (
    NotFound,
    Invalid,
    Unprocessable,
    Conflict,
    Denied,
    Unauthenticated,
    Limited,
    Unavailable,
    DeadlineExceeded,
    TooLarge,
    Internal,
)
_BY_NAME = {cls.__name__: cls for cls in _FAMILY}
_BY_STATUS = {cls.status: cls for cls in _FAMILY}


def kind_of(error: MillraceError) -> type[MillraceError]:
    """The member of the closed family that an error belongs to (domain subclasses travel as their family member)."""
    return next((cls for cls in type(error).__mro__ if cls in _FAMILY), Internal)


class _Wire(msgspec.Struct, omit_defaults=True):
    """What the trailing metadata holds, as JSON."""

    kind: str
    reason: str
    message: str
    faults: tuple[Fault, ...] = ()
    retry_after_s: float | None = None
    details: dict[str, object] = {}


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Wire).decode


def to_metadata(error: MillraceError) -> bytes:
    """The value of `ERROR_METADATA_KEY` for an error, below `MAX_ERROR_BYTES`: faults that do not fit are left out."""
    wire = _Wire(
        kind=kind_of(error).__name__,
        reason=error.reason,
        message=error.message[:8192],
        faults=error.faults,
        retry_after_s=error.retry_after_s,
        details=dict(error.details),
    )
    encoded = _encode(wire)
    if len(encoded) > MAX_ERROR_BYTES:
        wire.details = {}
        fitting, room = 0, MAX_ERROR_BYTES - len(wire.message.encode()) * 2 - 1024
        for fault in error.faults:
            room -= len(_encode(fault)) + 1
            if room < 0:
                break
            fitting += 1
        wire.faults = error.faults[:fitting]
        wire.details = {"faults_left_out": len(error.faults) - fitting}
        encoded = _encode(wire)
    return encoded


def from_metadata(value: bytes) -> MillraceError | None:
    """The error that `to_metadata` encoded; None when the bytes are not one."""
    try:
        wire = _decode(value)
    except msgspec.DecodeError:
        return None
    cls = _BY_NAME.get(wire.kind, Internal)
    error = cls(wire.reason, wire.message, faults=wire.faults, retry_after_s=wire.retry_after_s)
    error.details = wire.details  # type: ignore[assignment]  # decoded JSON is Json by construction
    return error


def from_status(code: StatusCode, message: str) -> MillraceError:
    """An error for a status that carries no `ERROR_METADATA_KEY`, hence was not raised by a domain."""
    cls = _BY_STATUS.get(code, Internal)
    return cls(f"RPC_{code.name}", message or f"The call ended with status {code.name}.")


def to_problem(error: MillraceError, instance: str | None = None) -> dict[str, Json]:
    """The RFC 9457 problem document of an error; `instance` is the request's path or reference."""
    problem: dict[str, Json] = {
        **error.details,
        "type": f"urn:millrace:error:{error.reason.lower().replace('_', '-')}",
        "title": error.title,
        "status": error.http,
        "detail": error.message,
        "reason": error.reason,
    }
    if instance is not None:
        problem["instance"] = instance
    if error.faults:
        problem["faults"] = [asdict(fault) for fault in error.faults]
    if error.retry_after_s is not None:
        problem["retry_after_s"] = error.retry_after_s
    return problem
