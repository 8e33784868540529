"""What an action may use while it runs.

Decides: the outgoing HTTP port, and what a call knows about its run.
Leaves: connecting, guarding and limiting to the executor; what an action does with an answer to the piece.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

import msgspec

from .values import Json

DEFAULT_TIMEOUT = timedelta(seconds=30)
"""How long an outgoing call may take when the piece says nothing."""


@dataclass(frozen=True, slots=True)
class Response:
    """The whole answer to an outgoing call. Header names are lower case; a name that came several times is joined by `,
    `.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str
    """Where the answer came from, after redirects."""

    def text(self) -> str:
        """The body as text, in the charset it names, else UTF-8; what cannot be read becomes U+FFFD."""
        charset = "utf-8"
        for part in self.headers.get("content-type", "").split(";")[1:]:
            name, _, value = part.strip().partition("=")
            if name.lower() == "charset":
                charset = value.strip().strip('"')
        try:
            return self.body.decode(charset, "replace")
        except (LookupError, ValueError):
            return self.body.decode("utf-8", "replace")

    def json(self) -> Json:
        """The body as JSON. Raises ValueError when it is none, or nested too deeply to be read."""
        try:
            value: Json = msgspec.json.decode(self.body)
        except RecursionError:
            raise ValueError("the body is JSON, but nested too deeply") from None
        except msgspec.MsgspecError as error:
            raise ValueError(f"the body is no JSON: {error}") from error
        return value


class Http(Protocol):
    """The guarded way out: the only one a piece should use."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout: timedelta = DEFAULT_TIMEOUT,  # noqa: ASYNC109 - a limit of the call itself, part of what it promises
        max_redirects: int = 5,
    ) -> Response:
        """Call an outside system and read the whole answer, whatever its status.

        `timeout` is from connecting to the last byte, redirects included. Redirects are followed up to `max_redirects`
        (0: the redirect itself is the answer); to another origin only harmless headers go along.
        Raises: EgressBlocked, the address is not open to flows; ConnectFailed, nothing was sent; ConnectionLost or
        TimedOut, the outcome is unknown; ResponseTooLarge; InputInvalid, the URL, method or a header is malformed.
        """
        ...


def _drop(_text: str) -> None:
    """Where log lines go when nobody listens."""


@dataclass(frozen=True, slots=True)
class Context:
    """One call of one action."""

    http: Http
    idempotency_key: str
    """The same for every try of this step whose outcome is not known; send it with each effect."""
    run_id: str
    step_id: str
    attempt: int
    """Counts from 1."""
    on_log: Callable[[str], None] = field(default=_drop, repr=False)

    def log(self, text: str) -> None:
        """Writes a line into the run's log. Known secrets in it are masked; lines over the limit are cut off and say
        so.
        """
        self.on_log(text)
