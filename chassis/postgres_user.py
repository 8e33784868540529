"""As whom the embedded PostgreSQL runs.

Decides: as ourselves, or, when we are root (whom PostgreSQL refuses), as the system user
`millrace-db`, made when it is missing.
Holds: that user gets its folder and may pass through (never list) the folders above it and above the programs.
Leaves: starting anything to `postgres`.
"""

import contextlib
import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from chassis.refusal import StartRefused

SYSTEM_USER = "millrace-db"


class PopenUser(TypedDict, total=False):
    """The arguments of `subprocess` that change the user."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class Identity:
    """The user the server runs as."""

    uid: int
    gid: int
    popen: PopenUser = field(default_factory=lambda: PopenUser())

    def own(self, path: Path) -> None:
        """Give a file or folder to that user."""
        if self.popen:
            os.chown(path, self.uid, self.gid)


def identity_for(folder: Path, programs: Path) -> Identity:
    """Return the user for a server in `folder`, ready to enter it and to run the programs."""
    if os.geteuid() != 0:
        return Identity(os.geteuid(), os.getegid())
    entry = _system_user()
    identity = Identity(entry.pw_uid, entry.pw_gid, PopenUser(user=entry.pw_uid, group=entry.pw_gid, extra_groups=[]))
    identity.own(folder)
    for way in (folder, programs):
        _let_pass(way)
    return identity


def _system_user() -> pwd.struct_passwd:
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(SYSTEM_USER)
    useradd = shutil.which("useradd") or "/usr/sbin/useradd"
    try:
        subprocess.run(  # noqa: S603  # a fixed program with fixed arguments
            [useradd, "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError):
        with contextlib.suppress(KeyError):  # another process made it in the meantime
            return pwd.getpwnam(SYSTEM_USER)
        raise StartRefused(
            f"PostgreSQL does not run as root, and the system user {SYSTEM_USER} could not be made. Make it (useradd "
            f"--system {SYSTEM_USER}), run Millrace as an ordinary user, or set MILLRACE_DATABASE_URL."
        ) from None
    return pwd.getpwnam(SYSTEM_USER)


def _let_pass(path: Path) -> None:
    """Let others pass through the folders above `path`, where they may not: the execute bit, without reading."""
    for folder in path.resolve().parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
