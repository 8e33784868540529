"""What the engine is told when code, an expression or a connection fails: the kind, and words that a person can act on.

Decides: the words. A place in the author's own source is named; an expression is quoted; no secret is told.
Leaves: what follows (retry, going on, the run's end) to engine/work.py, failures of actions to actions.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from services.executor.driver.masking import Masker
from services.executor.engine.commands import Ref
from services.executor.engine.events import EvaluationFailed, StepFailedEvent, TimedOut
from services.executor.sandbox import CodeThrew, CodeTimedOut, MemoryExceeded, SandboxError, SandboxUnavailable

MAX_QUOTED = 200
"""Characters of an expression that are quoted."""


def console_document(lines: Sequence[str], masker: Masker) -> bytes:
    """What code printed, as the journal holds it: a JSON list; empty when it printed nothing."""
    return masker.document(msgspec.json.encode(lines)) if lines else b""


def code_failed(ref: Ref, error: SandboxError, masker: Masker, now_ms: int) -> StepFailedEvent | TimedOut:
    """Code gave no value."""
    console = console_document(error.console, masker)
    if isinstance(error, CodeTimedOut):
        return TimedOut(ref, now_ms, console)
    message = masker.text(error.message)
    if isinstance(error, CodeThrew) and error.line is not None:
        message += f" (line {error.line}, column {error.column})"
    return StepFailedEvent(ref, error.kind, message, retryable=True, now_ms=now_ms, console=console)


def expression_failed(
    ref: Ref, error: SandboxError, expressions: Sequence[str], timeout_ms: int, now_ms: int
) -> EvaluationFailed:
    """The expressions of a step gave no values. They see no secret, so none can be in the message."""
    if isinstance(error, CodeTimedOut):
        message = f"The expressions of this step did not end within {timeout_ms / 1000:g} s."
        return EvaluationFailed(ref, message, now_ms)
    if isinstance(error, MemoryExceeded | SandboxUnavailable):
        return EvaluationFailed(ref, error.message, now_ms, error.kind)
    message = error.message
    if isinstance(error, CodeThrew) and error.expression is not None:
        message = message.removeprefix(f"Expression {error.expression + 1}: ")
        text = expressions[error.expression].strip()
        quoted = text if len(text) <= MAX_QUOTED else text[:MAX_QUOTED] + "…"
        message = f"{{{{ {quoted} }}}} failed: {message}"
    return EvaluationFailed(ref, message, now_ms)


def connection_missing(ref: Ref, names: Sequence[str], now_ms: int) -> StepFailedEvent:
    """The step uses connections that do not exist: nothing was called."""
    named = ", ".join(f"`{name}`" for name in names)
    message = f"There is no connection {named} in this project. Create it, or let the step use another one."
    return StepFailedEvent(ref, "CONNECTION_NOT_FOUND", message, retryable=False, now_ms=now_ms)
