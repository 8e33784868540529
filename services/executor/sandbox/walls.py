"""The walls around a jail: what the kernel no longer allows it.

Decides: which files (none), system calls (about forty) and resources a jail keeps, and in what order they are taken
away.
Leaves: when this happens in the life of a jail to jail.py; what to do on a machine without walls to jail.py and the
settings.

Two walls, either of which holds alone: Landlock (no file can be opened, no TCP, no signal or socket to the outside)
and seccomp (no call that would open, connect, fork, exec, trace or signal). Around them: own user id under root,
resource limits, no core dumps, no new privileges, death with the parent. A thread that V8 made before the walls
inherits Landlock, because Landlock's first, wider ring is raised before V8 starts; seccomp is put on all threads at
once.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys

_SYS_LANDLOCK_CREATE_RULESET = 444
_SYS_LANDLOCK_ADD_RULE = 445
_SYS_LANDLOCK_RESTRICT_SELF = 446
_SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_SIGKILL = 9

_RULE_PATH_BENEATH = 1
_ACCESS_READ_FILE = 1 << 2
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_FILTER_FLAG_TSYNC = 1

REQUESTS_FD = 0
ANSWERS_FD = 3

_PLAIN_CALLS = (
    # memory, which V8 cannot do without
    "brk", "madvise", "mmap", "mprotect", "mremap", "munmap", "pkey_alloc", "pkey_free", "pkey_mprotect",
    # the threads that are there already
    "futex", "get_robust_list", "membarrier", "rseq", "sched_getaffinity", "sched_yield", "set_robust_list",
    # clocks and chance
    "clock_getres", "clock_gettime", "clock_nanosleep", "getrandom", "gettimeofday", "nanosleep", "time",
    # signals to oneself by the processor (a trap), never sent
    "restart_syscall", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack",
    # who am I, how much did I use, the end
    "close", "exit", "exit_group", "getpid", "getrusage", "gettid",
)  # fmt: skip

_HOSTILE_CALLS = (
    "execve",
    "execveat",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "bpf",
    "userfaultfd",
    "keyctl",
)
"""Nothing of ours calls these by accident: whoever does has escaped V8, and the process ends at once (SIGSYS)."""


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def filter_program() -> bytes:
    """The seccomp filter as instructions for the kernel, made once in the executor.

    Empty: no libseccomp on this machine.
    """
    try:
        # Looks for its library by running a subprocess, so it is imported here and never in a jail.
        import pyseccomp as seccomp  # type: ignore[import-untyped]  # carries no types
    except (ImportError, RuntimeError, OSError):
        return b""
    rules = seccomp.SyscallFilter(seccomp.ERRNO(1))
    for name in _PLAIN_CALLS:
        _add(rules, seccomp.ALLOW, name)
    _add(rules, seccomp.ALLOW, "read", seccomp.Arg(0, seccomp.EQ, REQUESTS_FD))
    _add(rules, seccomp.ALLOW, "write", seccomp.Arg(0, seccomp.EQ, ANSWERS_FD))
    _add(rules, seccomp.ALLOW, "prlimit64", seccomp.Arg(0, seccomp.EQ, 0), seccomp.Arg(2, seccomp.EQ, 0))
    _add(rules, seccomp.ERRNO(38), "clone3")
    for name in _HOSTILE_CALLS:
        _add(rules, seccomp.KILL_PROCESS, name)
    return _export(rules)


def _add(rules: object, action: int, name: str, *arguments: object) -> None:
    try:
        rules.add_rule(action, name, *arguments)  # type: ignore[attr-defined]  # pyseccomp carries no types
    except OSError:
        return  # a call this processor does not know (aarch64 has no `time`) is denied by the default


def _export(rules: object) -> bytes:
    with os.fdopen(os.memfd_create("filter"), "w+b") as file:
        rules.export_bpf(file)  # type: ignore[attr-defined]  # pyseccomp carries no types
        file.seek(0)
        return file.read()


def die_with_parent(parent: int) -> None:
    """No privileges by exec, no memory dumps, and SIGKILL when the executor's thread that started us ends."""
    libc = _libc()
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)


def restrict_files(readable: str = "") -> int:
    """Raises Landlock for this thread and those it starts:

    no file but `readable` can be opened. Gives the ABI, 0 without Landlock.
    """
    libc = _libc()
    abi = int(libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1))
    if abi < 1:
        return 0
    files = (1 << (13 + (abi >= 2) + (abi >= 3) + (abi >= 5))) - 1
    attributes = struct.pack("<QQQ", files, 3, 3)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = int(libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))
    if ruleset < 0:
        return 0
    try:
        if readable:
            _allow_reading(libc, ruleset, readable)
        return abi if libc.syscall(_SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0 else 0
    finally:
        os.close(ruleset)


def _allow_reading(libc: ctypes.CDLL, ruleset: int, path: str) -> None:
    file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    rule = struct.pack("<Qi", _ACCESS_READ_FILE, file)
    libc.syscall(_SYS_LANDLOCK_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
    os.close(file)


def become(uid: int) -> bool:
    """Gives up root for a user id of this jail's own, on all threads. False: not root, or root without that right."""
    if os.geteuid() != 0:
        return False
    try:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    except OSError:
        return False
    return True


def limit_resources(status: int, memory_bytes: int, cpu_s: int) -> None:
    """No new file, process, core or descriptor; data up to what is held now plus `memory_bytes`; CPU time as a
    backstop.

    `status` is /proc/self/status, opened while files could be opened: RLIMIT_DATA counts what it calls VmData.
    """
    for limit in (resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_NOFILE):
        resource.setrlimit(limit, (0, 0))
    lines = os.pread(status, 8192, 0).decode("ascii", "replace").splitlines()
    held = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:")), 0)
    resource.setrlimit(resource.RLIMIT_DATA, (held + memory_bytes, held + memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, resource.RLIM_INFINITY))  # the executor moves it on from outside


def restrict_calls(program: bytes) -> bool:
    """Puts the seccomp filter on every thread of this process. The last step: nothing can be loaded afterwards."""
    number = _SYS_SECCOMP.get(os.uname().machine)
    if not program or number is None:
        return False
    instructions = ctypes.create_string_buffer(program, len(program))
    described = _FilterProgram(len(program) // 8, ctypes.cast(instructions, ctypes.c_void_p))
    flags = ctypes.c_uint(_SECCOMP_FILTER_FLAG_TSYNC)
    return bool(_libc().syscall(number, _SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(described)) == 0)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
