"""Who the command line is signed in as, kept between commands.

Decides: where (`$MILLRACE_CONFIG`, a folder; else `millrace` in the user's configuration folder), and that only this
user reads it (0600); that one command at a time refreshes: a refresh token works once, a second use ends the session.
Leaves: what the tokens are worth to the platform.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Session:
    """A platform and the tokens for it."""

    url: str
    email: str
    access_token: str
    refresh_token: str
    access_expires_at: str
    """RFC 3339, as the platform wrote it."""


def folder() -> Path:
    """Return where the session is kept."""
    if chosen := os.environ.get("MILLRACE_CONFIG"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "millrace"


def load() -> Session | None:
    """Return the session, None when nobody is signed in or the file is not ours."""
    try:
        return Session(**json.loads((folder() / "session.json").read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def save(session: Session) -> None:
    """Keep a session in the place of any other: whole or not at all, readable by this user alone."""
    place = folder()
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = place / f".session.{os.getpid()}"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(session), file)
    fresh.replace(place / "session.json")


def forget() -> None:
    """Be nobody again."""
    (folder() / "session.json").unlink(missing_ok=True)


@contextmanager
def alone() -> Iterator[None]:
    """Let no other command refresh meanwhile."""
    place = folder()
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (place / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
