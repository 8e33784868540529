"""How an action says that it failed.

Decides: the kinds of failure the platform itself knows, whether each may be tried again, and whether its outcome is
known.
Leaves: when and how often a step is tried again to the flow's author.

    ActionFailed
      InputInvalid       INPUT_INVALID       the input cannot work; mend the step
      EgressBlocked      EGRESS_BLOCKED      the address is not open to flows
      ConnectFailed      CONNECT_FAILED      no connection; nothing was sent
      ConnectionLost     CONNECTION_LOST     sent, but the answer never came; outcome unknown
      TimedOut           TIMED_OUT           took too long; outcome unknown
      ResponseTooLarge   RESPONSE_TOO_LARGE  the answer is over the limit

A piece adds kinds of its own by raising `ActionFailed` with another `kind`: capital letters and underscores, stable for
ever, because flows choose by kind what to try again.
"""

from __future__ import annotations

from collections.abc import Mapping

from .values import Json

KINDS: Mapping[str, str] = {
    "INPUT_INVALID": "The input does not fit the action. Mend the named field.",
    "EGRESS_BLOCKED": "The address is not public, or not one a flow may call. An operator can open it.",
    "CONNECT_FAILED": "No connection came about, nothing was sent. It is tried again.",
    "CONNECTION_LOST": "The request left, its answer never arrived. It is tried again with the same key.",
    "TIMED_OUT": "The call took longer than allowed. It is tried again with the same key.",
    "RESPONSE_TOO_LARGE": "The answer is larger than allowed. Ask for less, or for a page of it.",
    "BAD_RESPONSE": "The other side answered with something that cannot be read.",
    "TOO_MANY_REDIRECTS": "The address leads on and on, or in a circle.",
    "HTTP_STATUS": "The other side answered with an error status.",
    "OUTPUT_INVALID": "The action gave something that is no JSON value, or too much of it.",
    "PIECE_BROKEN": "The piece failed in a way its author did not foresee.",
    "UNKNOWN_ACTION": "No such piece or action is installed.",
    "STORE_WRONG_TYPE": "The stored value is of another type than the operation needs.",
    "STORE_TOO_LARGE": "The stored value would grow over the limit.",
}
"""Every kind the platform raises, with its sentence for the documentation."""


class ActionFailed(Exception):  # noqa: N818 - said as it reads in a flow: the action failed
    """An action failed, and says how.

    `kind` is stable and in capital letters; `message` says what happened, to what, and what to do. `retryable`: another
    try may succeed, so the step's retry policy applies; `retry_after_s` is the least wait before it. `outcome_unknown`:
    the outside system may have done the work, so the next try sends the same idempotency key. `details` is shown with
    the run; secrets in it are masked.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        retryable: bool = False,
        retry_after_s: float | None = None,
        outcome_unknown: bool = False,
        details: Mapping[str, Json] | None = None,
    ) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = message
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.outcome_unknown = outcome_unknown
        self.details: dict[str, Json] = dict(details or {})

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


class InputInvalid(ActionFailed):
    """The input cannot work, however often it is tried. `field`: where, as `url` or `headers.accept`; empty for the
    whole.
    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__("INPUT_INVALID", message, details={"field": field} if field else None)
        self.field = field


class EgressBlocked(ActionFailed):
    """The address is private, or not one that flows may call. Another try would be refused as well."""

    def __init__(self, message: str) -> None:
        super().__init__("EGRESS_BLOCKED", message)


class ConnectFailed(ActionFailed):
    """No connection came about: nothing was sent, another try is safe."""

    def __init__(self, message: str) -> None:
        super().__init__("CONNECT_FAILED", message, retryable=True)


class ConnectionLost(ActionFailed):
    """The request left and the connection broke before the whole answer came: the work may be done. Retryable, with the
    same key.
    """

    def __init__(self, message: str) -> None:
        super().__init__("CONNECTION_LOST", message, retryable=True, outcome_unknown=True)


class TimedOut(ActionFailed):
    """The call took longer than allowed: the work may be done. Retryable, with the same key."""

    def __init__(self, message: str) -> None:
        super().__init__("TIMED_OUT", message, retryable=True, outcome_unknown=True)


class ResponseTooLarge(ActionFailed):
    """The answer is over the limit. The call itself was carried out; another try would end the same."""

    def __init__(self, message: str) -> None:
        super().__init__("RESPONSE_TOO_LARGE", message)
