"""The platform's REST API as commands call it.

Decides: which platform (`--url`, else the one signed in to, else this machine's), when tokens are refreshed, and which
exit code each kind of failure has.
Leaves: what to say about an answer to the commands; what to say about a failure to the platform (problem+json).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from cli import session as sessions
from cli.session import Session

Record = dict[str, Any]
"""A JSON object of the API; `/api/v1/openapi.json` describes each."""

REFUSED, SIGN_IN, AWAY = 1, 3, 4
"""Exit codes: the platform refused; nobody is signed in; the platform cannot be reached. (2: wrong usage.)"""

_REFRESH_BEFORE = timedelta(seconds=30)
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
_PROBLEM = "application/problem+json"


class CommandFailed(Exception):  # noqa: N818  # named by what happened, as all errors of the house
    """A command cannot do what it was asked; the message says why and what to do, in sentences."""

    def __init__(self, message: str, exit_code: int = REFUSED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Api:
    """One platform, as one person of one project. Use as a context."""

    def __init__(self, url: str = "", project: str = "") -> None:
        self._session = sessions.load()
        chosen = url or os.environ.get("MILLRACE_URL", "")
        self.url = (chosen or (self._session.url if self._session else "") or _here()).rstrip("/")
        project = project or os.environ.get("MILLRACE_PROJECT", "")
        headers = {"x-millrace-project": project} if project else {}
        self._http = httpx.Client(base_url=self.url, timeout=_TIMEOUT, headers=headers)

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.close()

    def get(self, path: str, **query: str | int | Sequence[str] | None) -> Record:
        """Read one thing."""
        return self._json("GET", path, params=_present(query))

    def all_of(self, path: str, items: str, limit: int, **query: str | Sequence[str] | None) -> Iterator[Record]:
        """Read the first `limit` items of a list, page by page."""
        token = ""
        while limit > 0:
            page = self.get(path, page_size=min(limit, 100), page_token=token, **query)
            yield from page[items][:limit]
            limit -= len(page[items])
            token = page["next_page_token"]
            if not token:
                return

    def send(self, method: str, path: str, body: Record | None = None) -> Record:
        """Change something; what comes back, empty for an answer without a body."""
        return self._json(method, path, json=body) if body is not None else self._json(method, path)

    def upload(self, path: str, content: bytes, kind: str, **query: str | None) -> Record:
        """Send a document."""
        return self._json("POST", path, content=content, params=_present(query), headers={"content-type": kind})

    def download(self, path: str, **query: str | None) -> bytes:
        """Read a document as it stands."""
        return self._signed("GET", path, params=_present(query)).content

    def open(self, path: str, body: Record) -> Record:
        """Call one of the routes that need no token."""
        answer: Record = self._checked(self._call("POST", path, json=body)).json()
        return answer

    def sign_in_with(self, email: str, tokens: Mapping[str, str]) -> None:
        """Keep the tokens that the platform gave."""
        self._session = Session(self.url, email, **tokens)
        sessions.save(self._session)

    def sign_out(self) -> None:
        """End the session here and there. Nobody signed in: nothing."""
        session = self._session
        sessions.forget()
        if session is not None and session.url == self.url:
            self._checked(self._call("POST", "/api/v1/auth/sign-out", json={"refresh_token": session.refresh_token}))

    def fresh_token(self) -> str:
        """Return an access token that works for a while. Raises: CommandFailed when nobody is signed in."""
        session = self._session
        if session is None or session.url != self.url:
            raise CommandFailed(f"You are not signed in to {self.url}. Run `millrace sign-in EMAIL` first.", SIGN_IN)
        if _expires_soon(session):
            session = self._refreshed()
        return session.access_token

    def _refreshed(self) -> Session:
        with sessions.alone():
            session = sessions.load()
            if session is None or session.url != self.url:
                raise CommandFailed(f"You are no longer signed in to {self.url}. Run `millrace sign-in`.", SIGN_IN)
            if _expires_soon(session):  # nobody was faster
                answer = self._call("POST", "/api/v1/auth/refresh", json={"refresh_token": session.refresh_token})
                if answer.status_code == httpx.codes.UNAUTHORIZED:
                    sessions.forget()
                    raise CommandFailed("Your session has ended. Run `millrace sign-in EMAIL` again.", SIGN_IN)
                session = Session(self.url, session.email, **self._checked(answer).json()["tokens"])
                sessions.save(session)
        self._session = session
        return session

    def _json(self, method: str, path: str, **arguments: Any) -> Record:
        answer = self._signed(method, path, **arguments)
        return answer.json() if answer.content else {}

    def _signed(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, **arguments: Any
    ) -> httpx.Response:
        signed = {**(headers or {}), "authorization": f"Bearer {self.fresh_token()}"}
        return self._checked(self._call(method, path, headers=signed, **arguments))

    def _call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **arguments)
        except httpx.TimeoutException:
            raise CommandFailed(
                f"{self.url} did not answer in time. Whether the request took effect is unknown.", AWAY
            ) from None
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise CommandFailed(
                f"Millrace does not answer at {self.url} ({error}). Start it (`millrace up`), or name it with --url.",
                AWAY,
            ) from None

    def _checked(self, answer: httpx.Response) -> httpx.Response:
        if answer.is_success:
            return answer
        if not answer.headers.get("content-type", "").startswith(_PROBLEM):
            raise CommandFailed(
                f"{self.url} answered {answer.status_code}, and not as Millrace does. Is the address right?"
            )
        code = {401: SIGN_IN, 503: AWAY}.get(answer.status_code, REFUSED)
        raise CommandFailed(sentences(answer.json()), code)


def sentences(problem: Record) -> str:
    """What a problem says, each of its faults on a line of its own."""
    lines = [str(problem.get("detail") or problem.get("title"))]
    for fault in problem.get("faults", ()):
        where = " ".join(part for part in (fault.get("step_id"), fault.get("field")) if part)
        lines.append(f"  {where}: {fault['message']}" if where else f"  {fault['message']}")
    return "\n".join(lines)


def _expires_soon(session: Session) -> bool:
    expires_at = datetime.fromisoformat(session.access_expires_at)
    return expires_at - datetime.now(UTC) < _REFRESH_BEFORE


def _here() -> str:
    return f"http://127.0.0.1:{os.environ.get('MILLRACE_PORT') or '8080'}"


def _present(query: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value not in (None, "", [])}
