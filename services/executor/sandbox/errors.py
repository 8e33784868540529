"""What can go wrong when users' code runs.

Decides: the closed family of sandbox errors and the word (`kind`) each is recorded under.
Leaves: what a run does about one of them (retry, catch, fail) to the engine.
"""

from __future__ import annotations

from typing import ClassVar


class SandboxError(Exception):
    """Code or an expression did not give a value. `kind` names the reason, the text says what happened."""

    kind: ClassVar[str] = "SANDBOX_FAILED"

    def __init__(self, message: str, console: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.console = console


class CodeThrew(SandboxError):  # noqa: N818 - the name says what happened
    """The author's code threw, did not parse, or waits for something that cannot come. Trying again gives the same.

    `line` and `column` count from 1 in the author's source (None: no place known); `stack` holds at most ten frames
    of the author's own source; `expression` is the index of the expression at fault when expressions were evaluated.
    """

    kind = "CODE_THREW"

    def __init__(
        self,
        message: str,
        line: int | None = None,
        column: int | None = None,
        *,
        stack: str = "",
        expression: int | None = None,
        console: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, console)
        self.line = line
        self.column = column
        self.stack = stack
        self.expression = expression


class CodeTimedOut(SandboxError):  # noqa: N818 - the name says what happened
    """The call ran longer than its limit and was killed. The time others took before it does not count."""

    kind = "CODE_TIMED_OUT"


class MemoryExceeded(SandboxError):  # noqa: N818 - the name says what happened
    """The call wanted more memory than a jail may hold and was killed."""

    kind = "MEMORY_EXCEEDED"


class OutputInvalid(SandboxError):  # noqa: N818 - the name says what happened
    """The call ended with a value that is no JSON (a cycle, a BigInt) or too large a one."""

    kind = "OUTPUT_INVALID"


class SandboxUnavailable(SandboxError):  # noqa: N818 - the name says what happened
    """No code can run here at all: this machine cannot wall a jail in, or jails do not start. The text says why."""

    kind = "SANDBOX_UNAVAILABLE"
