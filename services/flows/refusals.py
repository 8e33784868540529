"""Every reason with which flows refuses a call, and its sentence: what happened, to what, what to do.

Decides: the words. Leaves: when to refuse to the domain; status codes to chassis/errors.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from chassis.errors import Conflict, Fault, Invalid, NotFound, TooLarge, Unprocessable
from flowlang.documents import DocumentError
from flowlang.faults import Fault as DraftFault
from flowlang.operations import OperationError


def flow_not_found(flow_id: UUID) -> NotFound:
    """No such flow, or one of another project, or a deleted one."""
    return NotFound("FLOW_NOT_FOUND", f"There is no flow {flow_id} in this project.")


def version_not_found(flow_id: UUID, version_id: UUID) -> NotFound:
    """No such version of this flow in this project."""
    return NotFound("VERSION_NOT_FOUND", f"The flow {flow_id} has no version {version_id} in this project.")


def draft_stale(flow_id: UUID, seen_revision: int, current_revision: int) -> Conflict:
    """The draft moved on since the caller saw it."""
    return Conflict(
        "DRAFT_STALE",
        f"The draft of flow {flow_id} is at revision {current_revision}, this was made on {seen_revision}. "
        "Read the draft again and repeat the change.",
        current_revision=current_revision,
    )


def flow_not_published(flow_id: UUID) -> Conflict:
    """There is no version to switch on."""
    return Conflict("FLOW_NOT_PUBLISHED", f"The flow {flow_id} has no published version. Publish its draft first.")


def draft_invalid(faults: Sequence[DraftFault]) -> Unprocessable:
    """The draft cannot run; every fault names its step and field."""
    count = f"{len(faults)} faults" if len(faults) > 1 else "a fault"
    return Unprocessable(
        "DRAFT_INVALID",
        f"The draft has {count} to mend before it can run.",
        faults=[Fault(fault.step_id, fault.field, fault.message, fault.reason) for fault in faults],
    )


def document_invalid(error: DocumentError) -> Invalid:
    """A text cannot be read as a flow document."""
    where = f" (line {error.line}, column {error.column})" if error.line else ""
    return Invalid("DOCUMENT_INVALID", f"{error.message}{where}", line=error.line, column=error.column)


def name_invalid(length: int, limit: int) -> Invalid:
    """A new flow needs a name to be found by."""
    message = f"A flow's name has 1 to {limit} characters, this one has {length}."
    if 1 <= length <= limit:
        message = "A flow's name holds no control characters and no line breaks, this one does. Take them out."
    return Invalid("NAME_INVALID", message, faults=[Fault(field="name", message=message, reason="NAME_INVALID")])


def operation_invalid(error: OperationError, count: int) -> Invalid:
    """One of the operations cannot be applied; none was."""
    message = f"Operation {error.index + 1} of {count} cannot be applied: {error.message}"
    return Invalid("OPERATION_INVALID", message, operation=error.index)


def operations_too_large(limit_bytes: int) -> TooLarge:
    """The operations of one call are too much."""
    return TooLarge("OPERATIONS_TOO_LARGE", f"The operations of one edit may have {limit_bytes} bytes together.")


def id_of(text: str, field: str) -> UUID:
    """An id from a field that may also be empty. Raises Invalid REQUEST_INVALID."""
    try:
        return UUID(text)
    except ValueError:
        message = f"`{field}` must be an id (a UUID)."
        raise Invalid("REQUEST_INVALID", message, faults=[Fault(field=field, message="must be a UUID")]) from None
