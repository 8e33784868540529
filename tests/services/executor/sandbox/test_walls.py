# ruff: noqa: E501 - a program under test stays on one line
"""The walls, tried from inside: Python runs in a jail as if V8 had been escaped, and finds an empty room."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.executor.sandbox import SandboxSettings, wire
from services.executor.sandbox.pool import lay_out_icu
from services.executor.sandbox.process import JailGround, import_paths, jail_setup
from services.executor.sandbox.walls import filter_program

BOOT = """
import sys
sys.path[:0] = sys.argv[1:]
import ctypes, json, os, resource, socket, errno, signal, threading, subprocess
from services.executor.sandbox import jail
before()
try:
    kept = jail.enter()
except jail.Refused:
    sys.argv = []
    jail.refuse(sys.exc_info()[1])
try:
    result = escaped()
except OSError as error:
    result = errno.errorcode[error.errno]
except Exception as error:
    result = type(error).__name__
os.write(3, json.dumps(result).encode())
"""
DENIED = ("EPERM", "EACCES", "ENOSYS", "EMFILE")


class Prison:
    """Starts jails that run given Python once their walls stand."""

    def __init__(self, folder: str) -> None:
        self.program = filter_program()
        self.icu_file = lay_out_icu(folder)
        self.folder = folder

    def run(
        self, escaped: str, *, before: str = "pass", program: bytes | None = None, allow: bool = False
    ) -> tuple[int, object]:
        """The exit status (negative: signal) and what the Python function body returned."""
        program = self.program if program is None else program
        ground = JailGround(SandboxSettings(allow_without_walls=allow), program, self.folder, self.icu_file)
        page = os.memfd_create("page")
        os.ftruncate(page, wire.PAGE_BYTES)
        functions = f"def before():\n    {before}\ndef escaped():\n    {escaped}\n"
        child = subprocess.run(
            [sys.executable, "-I", "-S", "-c", functions + BOOT, *import_paths()],
            input=wire.frame(0, wire.SETUP, jail_setup(ground, 61_900, page)),
            capture_output=True,
            env={"HOME": "/nonexistent", "ICU_DATA": self.folder, "TZ": "UTC"},
            cwd="/",
            pass_fds=(page,),
            timeout=30,
            check=False,
        )
        os.close(page)
        length, _, sort = wire.HEADER.unpack_from(child.stdout)
        self.report = child.stdout[wire.HEADER.size : wire.HEADER.size + length]
        rest = child.stdout[wire.HEADER.size + length :]
        if sort == wire.REFUSED:
            return child.returncode, "refused"
        return child.returncode, json.loads(rest) if rest else None


@pytest.fixture(scope="module")
def prison() -> Iterator[Prison]:
    with tempfile.TemporaryDirectory() as folder:
        yield Prison(folder)


FORBIDDEN = {
    "read a file": "return open('/etc/passwd').read()",
    "read its own code": "return open(__import__('sys').executable, 'rb').read(4).hex()",
    "read /proc of itself": "return open('/proc/self/environ').read()",
    "read /proc of the parent": "return open(f'/proc/{os.getppid()}/environ').read()",
    "list a folder": "return os.listdir('/')",
    "write a file": "return open('/tmp/escaped', 'w').write('x')",
    "make a file in memory": "return os.memfd_create('x')",
    "TCP": "return socket.socket(socket.AF_INET, socket.SOCK_STREAM).fileno()",
    "UDP": "return socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).fileno()",
    "Unix socket": "return socket.socketpair()[0].fileno()",
    "netlink": "return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).fileno()",
    "raw socket": "return socket.socket(socket.AF_INET, socket.SOCK_RAW).fileno()",
    "fork": "return os.fork()",
    "a pipe": "return os.pipe()",
    "kill the parent": "return os.kill(os.getppid(), 9)",
    "stop the parent": "return os.kill(os.getppid(), 19)",
    "kill its group": "return os.killpg(0, 9)",
    "signal itself": "return os.kill(os.getpid(), 15)",
    "a handle on the parent": "return os.pidfd_open(os.getppid())",
    "become root": "return os.setuid(0)",
    "change root": "return os.chroot('/')",
    "write to another descriptor": "return os.write(1, b'forged')",
    "write to the error output": "return os.write(2, b'noise')",
    "priority of others": "return os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
}


@pytest.fixture(scope="module")
def outcomes(prison: Prison) -> object:
    """All attempts, one after the other in one jail."""
    attempts = "".join(f"\n    def attempt_{i}():\n        {FORBIDDEN[name]}" for i, name in enumerate(FORBIDDEN))
    status, result = prison.run(f"""found = []{attempts}
    for i in range({len(FORBIDDEN)}):
        try:
            found.append(str(locals()[f'attempt_{{i}}']()))
        except OSError as error:
            found.append(errno.errorcode[error.errno])
    return found""")
    assert status == 0
    return result


@pytest.mark.parametrize("attempt", FORBIDDEN)
def test_nothing_outside_can_be_reached(outcomes: list[str], attempt: str) -> None:
    assert outcomes[list(FORBIDDEN).index(attempt)] in DENIED


RAW = {
    "open": (2, "b'/etc/passwd', 0, 0"), "openat": (257, "-100, b'/etc/passwd', 0, 0"), "openat2": (437, "-100, b'/', 0, 0"),
    "clone as fork": (56, "17, 0, 0, 0, 0"), "clone as thread": (56, "0x10f00, 0, 0, 0, 0"), "clone3": (435, "0, 0"), "vfork": (58, ""),
    "prctl": (157, "4, 1, 0, 0, 0"), "seccomp": (317, "0, 0, 0"), "io_uring": (425, "8, 0"), "mount": (165, "0, 0, 0, 0, 0"),
    "prlimit": (302, "0, 2, bytes(16), 0"), "setrlimit": (160, "2, bytes(16)"), "unshare": (272, "0x10000000"), "setns": (308, "0, 0"), "tgkill": (234, "os.getpid(), os.getpid(), 0"), "perf": (298, "0, 0, -1, -1, 0"),
    "read of another descriptor": (0, "3, 0, 0"), "dup": (32, "0"), "fcntl": (72, "0, 0"), "ioctl": (16, "0, 0x5412, b'x'"),
    "shmget": (29, "0, 4096, 0o1600"), "msgget": (68, "0, 0o1600"), "add_key": (248, "0, 0, 0, 0, 0"), "sendmsg": (46, "1, 0, 0"),
    "process_madvise": (440, "0, 0, 0, 0, 0"), "landlock": (446, "0, 0"), "kcmp": (312, "0, 0, 0, 0, 0"), "timer": (222, "0, 0, 0"),
}  # fmt: skip


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86-64")
def test_no_other_system_call_works(prison: Prison) -> None:
    calls = ", ".join(f"{name!r}: call({number}, {arguments})" for name, (number, arguments) in RAW.items()).replace(
        ", )", ")"
    )
    escaped = f"""libc = ctypes.CDLL(None, use_errno=True)
    def call(*arguments):
        return [libc.syscall(*arguments), errno.errorcode.get(ctypes.get_errno())]
    return {{{calls}}}"""
    status, result = prison.run(escaped)
    assert status == 0
    assert isinstance(result, dict)
    assert {
        name: found for name, found in result.items() if found[0] != -1 or found[1] not in ("EPERM", "ENOSYS")
    } == {}


@pytest.mark.parametrize(
    "call",
    [
        "os.execv('/bin/sh', ['sh'])",
        "ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0)",
        "ctypes.CDLL(None).process_vm_readv(os.getppid(), 0, 0, 0, 0, 0)",
        "ctypes.CDLL(None).syscall(321, 0, 0, 0)",
        "ctypes.CDLL(None).syscall(323, 0)",
        "ctypes.CDLL(None).syscall(250, 0, 0, 0, 0, 0)",
    ],
)
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86-64")
def test_what_only_an_attacker_calls_ends_the_process(prison: Prison, call: str) -> None:
    assert prison.run(f"return {call}") == (-signal.SIGSYS, None)


def test_a_thread_cannot_be_started(prison: Prison) -> None:
    assert prison.run("return threading.Thread(target=print).start()") == (0, "RuntimeError")


def test_nothing_is_inherited(prison: Prison) -> None:
    inherited = socket.socket()
    os.set_inheritable(inherited.fileno(), True)
    os.environ["MILLRACE_SECRET"] = "secret"
    try:
        status, result = prison.run(
            "return [sorted(os.environ), seen]",
            before="global seen; seen = sorted(int(fd) for fd in os.listdir('/proc/self/fd'))",
        )
    finally:
        del os.environ["MILLRACE_SECRET"]
        inherited.close()
    assert status == 0
    assert isinstance(result, list)
    names, descriptors = result
    assert names == ["HOME", "ICU_DATA", "TZ"] or names == ["HOME", "ICU_DATA", "LC_CTYPE", "TZ"]
    assert inherited.fileno() not in descriptors
    assert len(descriptors) == 5  # input, output, error, the page (closed later), and the folder being listed


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give jails users of their own")
def test_under_root_a_jail_has_a_user_of_its_own(prison: Prison) -> None:
    libc = "return [ctypes.CDLL(None).syscall(107), seen]"  # geteuid is not among the allowed calls
    _, result = prison.run(libc, before="global seen; seen = os.geteuid()")
    assert result == [-1, 0]
    assert "own user" in json.loads(prison.report)


def test_landlock_holds_without_seccomp(prison: Prison) -> None:
    no_limits = "jail.walls.limit_resources = lambda *_: None"
    for attempt in ("read a file", "list a folder", "write a file", "read /proc of the parent", "kill the parent"):
        status, result = prison.run(FORBIDDEN[attempt], program=b"", before=no_limits)
        assert (status, result in ("EPERM", "EACCES")) == (0, True), attempt
    assert "seccomp" not in json.loads(prison.report)


def test_seccomp_holds_without_landlock(prison: Prison) -> None:
    status, result = prison.run("return open('/etc/passwd').read()", before="jail.walls.restrict_files = lambda *_: 0")
    assert (status, result in DENIED) == (0, True)


def test_without_any_wall_a_jail_refuses(prison: Prison) -> None:
    without_landlock = "jail.walls.restrict_files = lambda *_: 0"
    assert prison.run("return 1", before=without_landlock, program=b"", allow=True) == (0, 1)
    assert prison.run("return 1", before=without_landlock, program=b"") == (wire.EXIT_REFUSED, "refused")
    assert b"neither Landlock nor seccomp" in prison.report


def test_files_of_the_test_were_not_written() -> None:
    assert not Path("/tmp/escaped").exists()  # noqa: S108 - the name that an attempt above would have made
