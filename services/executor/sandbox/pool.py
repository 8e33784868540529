"""The sandbox: which jail runs which call.

Decides: a jail serves one project and is killed before another gets its place; who waits when all jails are taken;
what becomes of the calls in a jail that is slow, over its limit or dead.
Leaves: the process to process.py, bytes and results to calls.py, what a failed call means for its run to the engine.

Rules
- A call's limit counts from when it begins to run. Over it, the jail is killed; the calls queued behind move to
  another one, unharmed.
- A call that runs long lets those behind it move to another jail at once. Code is pure here, so should one run twice
  nobody is hurt.
- Death by memory: in a jail that served before, earlier garbage may be to blame, so the call is tried once more in a
  fresh jail.
- All jails busy and another project waits: the jail held longest takes no more calls, ends its queue and makes room.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import msgspec

from services.executor.sandbox import wire
from services.executor.sandbox.calls import (
    Call,
    CodeResult,
    CodeUnit,
    ExpressionKey,
    SourceKind,
    SourceProblem,
    documents_read,
    names_read,
    problems,
)
from services.executor.sandbox.errors import CodeTimedOut, MemoryExceeded, SandboxError, SandboxUnavailable
from services.executor.sandbox.process import Jail, JailGround
from services.executor.sandbox.settings import SandboxSettings
from services.executor.sandbox.walls import filter_program

_QUICK_TICK_S = 0.005
_CALM_TICK_S = 0.02
_CHECK_LIMIT_S = 10.0
_START_ATTEMPTS = 3
_IDLE_KEPT_S = 60.0

_names_read = lru_cache(maxsize=4096)(names_read)


class Sandbox:
    """Runs users' code and expressions in jails. An async context manager; leaving it kills all jails."""

    def __init__(self, settings: SandboxSettings | None = None) -> None:
        self._settings = settings or SandboxSettings()
        self._jails: list[Jail] = []
        self._leases: dict[str, list[Jail]] = {}
        self._waiting: dict[str, deque[Call]] = {}
        self._refusal: str | None = None
        self._failed_starts = 0
        self._closing = False
        self._tick_handle: asyncio.TimerHandle | None = None
        self._idle_handle: asyncio.TimerHandle | None = None
        self.walls: tuple[str, ...] = ()
        """What holds jails in on this machine; known once the first jail is ready."""

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._folder = tempfile.mkdtemp(prefix="millrace-jail-")
        program = await asyncio.to_thread(filter_program)
        icu_file = await asyncio.to_thread(lay_out_icu, self._folder)
        self._ground = JailGround(self._settings, program, self._folder, icu_file)
        self._keep_spare()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        for handle in (self._tick_handle, self._idle_handle):
            if handle is not None:
                handle.cancel()
        jails = list(self._jails)
        unfinished = [call for calls in self._waiting.values() for call in calls]
        for jail in jails:
            unfinished += jail.pending.values()
            jail.pending.clear()
            jail.kill()
        for call in unfinished:
            call.fail(SandboxUnavailable("The sandbox is closing"))
        for jail in jails:
            await jail.wait()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def run_code(self, project_id: str, unit: CodeUnit, input: bytes, timeout_ms: int) -> CodeResult:
        """Calls a code step's function with `input` (JSON). The limit counts from when it begins to run.

        Raises `CodeThrew`, `CodeTimedOut`, `MemoryExceeded`, `OutputInvalid`, `SandboxUnavailable`.
        """
        call = Call(project_id, wire.RUN, unit, input, timeout_ms / 1000, self._loop.create_future())
        return cast(CodeResult, await self._outcome(call))

    async def evaluate(
        self,
        project_id: str,
        version_id: str,
        expressions: tuple[str, ...],
        scope: Mapping[str, bytes],
        timeout_ms: int,
    ) -> bytes:
        """All expressions of a step in one call; gives a JSON array, one value each.

        `scope`: root name → JSON. `undefined` and a missing path give null. Any other throw is `CodeThrew`, whose
        text and `expression` name the first one at fault.
        """
        names, documents = documents_read(scope, _names_read(expressions))
        key = ExpressionKey(version_id, names, expressions)
        call = Call(
            project_id, wire.EVALUATE, key, wire.pack_parts(documents), timeout_ms / 1000, self._loop.create_future()
        )
        return cast(bytes, await self._outcome(call))

    async def check(
        self, sources: Sequence[tuple[SourceKind, str]], project_id: str = ""
    ) -> list[SourceProblem | None]:
        """Parses each text without running it; None where it is well.

        `project_id`: whose jail parses (default: one for all).
        """
        if not sources:
            return []
        body = msgspec.json.encode([list(source) for source in sources])
        call = Call(project_id, wire.CHECK, None, body, _CHECK_LIMIT_S, self._loop.create_future())
        return problems(cast(bytes, await self._outcome(call)))

    def jails_of(self, project_id: str) -> tuple[int, ...]:
        """The process ids of the jails that serve a project now."""
        return tuple(jail.pid for jail in self._leases.get(project_id, ()))

    async def _outcome(self, call: Call) -> object:
        self._submit(call)
        try:
            return await call.future
        except asyncio.CancelledError:
            call.limit_s = 0.0  # nobody waits any more: the next look at its jail kills it
            raise

    # --- Handing out ---

    def _submit(self, call: Call) -> None:
        if self._refusal is not None or self._closing:
            call.fail(SandboxUnavailable(self._refusal or "The sandbox is closing"))
            return
        jail = self._own_jail(call)
        if jail is None:
            self._waiting.setdefault(call.project_id, deque()).append(call)
            self._place_waiting()
        else:
            jail.send(call)
            self._watch()

    def _own_jail(self, call: Call) -> Jail | None:
        """The least busy jail of the call's project that may take it."""
        lease = self._leases.get(call.project_id)
        if not lease or call.fresh or call.project_id in self._waiting:
            return None
        best: Jail | None = None
        for jail in lease:
            if not jail.retiring and (best is None or jail.load < best.load):
                best = jail
        if (
            best is not None
            and call.version_id not in best.versions
            and len(best.versions) >= self._settings.max_realms
        ):
            self._retire(best)
            return None
        return best

    def _place_waiting(self) -> None:
        """Gives waiting calls to jails, project by project in the order they came."""
        for project_id in list(self._waiting):
            calls = self._waiting.pop(project_id)
            while calls:
                jail = self._own_jail(calls[0]) or self._new_lease(project_id)
                if jail is None:
                    self._waiting[project_id] = calls
                    break
                calls[0].fresh = False
                call = calls.popleft()
                if not call.future.done():
                    jail.send(call)
        if self._waiting:
            self._make_room()
        self._keep_spare()
        self._watch()

    def _new_lease(self, project_id: str) -> Jail | None:
        """A jail that served nobody yet becomes the project's, if one is ready and there is room."""
        spare = next((jail for jail in self._jails if jail.ready and jail.project_id is None), None)
        if spare is None or not self._room_for_one_more():
            return None
        spare.project_id = project_id
        spare.used_at = self._loop.time()
        self._leases.setdefault(project_id, []).append(spare)
        return spare

    def _room_for_one_more(self) -> bool:
        """Kills the idle jail that was used longest ago when all are given out."""
        leased = [jail for jail in self._jails if jail.project_id is not None]
        if len(leased) < self._settings.max_jails:
            return True
        idle = [jail for jail in leased if not jail.pending]
        if not idle:
            return False
        self._drop(min(idle, key=lambda jail: jail.used_at))
        return True

    def _make_room(self) -> None:
        """All jails busy: as many of those held longest as projects wait for take no more calls."""
        leased = [jail for jail in self._jails if jail.project_id is not None]
        if len(leased) < self._settings.max_jails:
            return
        wanted = len(self._waiting) - sum(jail.retiring for jail in leased)
        for jail in sorted(leased, key=lambda jail: jail.used_at):
            if wanted > 0 and not jail.retiring and jail.project_id not in self._waiting:
                self._retire(jail)
                wanted -= 1

    def _retire(self, jail: Jail) -> None:
        jail.retiring = True
        if not jail.pending:
            self._drop(jail)

    def _keep_spare(self) -> None:
        if self._closing or self._refusal is not None or (self._failed_starts >= _START_ATTEMPTS and not self._waiting):
            return
        unleased = sum(jail.project_id is None for jail in self._jails)
        wanted = 1 + min(len(self._waiting), self._settings.max_jails)
        taken = {jail.uid for jail in self._jails}
        for _ in range(wanted - unleased):
            uid = next(uid for uid in range(self._settings.first_uid, 1 << 31) if uid not in taken)
            taken.add(uid)
            self._jails.append(Jail(self._ground, uid, self._on_rest, self._on_end))

    def _drop(self, jail: Jail) -> None:
        """Kills a jail that has no calls; its place is free at once."""
        self._release(jail)
        jail.kill()

    def _release(self, jail: Jail) -> None:
        if jail in self._jails:
            self._jails.remove(jail)
        lease = self._leases.get(jail.project_id or "")
        if jail.project_id is not None and lease and jail in lease:
            lease.remove(jail)
            if not lease:
                del self._leases[jail.project_id]

    # --- What jails tell ---

    def _on_rest(self, jail: Jail) -> None:
        """A jail has answered all it had, or has just become ready."""
        if jail.project_id is None:
            if jail.walls is not None:
                self.walls = jail.walls
                self._failed_starts = 0
        else:
            jail.used_at = self._loop.time()
            jail.slow = False
            if jail.retiring and jail in self._jails:
                self._drop(jail)
        if self._waiting or jail.retiring:
            self._place_waiting()

    def _on_end(self, jail: Jail) -> None:
        """A jail is gone. If it was not killed by us, someone's call is to blame."""
        known = jail in self._jails
        self._release(jail)
        if self._closing or not known:
            return
        if jail.walls is None:
            self._start_failed(jail)
        elif jail.pending:
            self._bury(jail)
        self._place_waiting()

    def _bury(self, jail: Jail) -> None:
        culprit = jail.pending.pop(jail.running())
        rest = list(jail.pending.values())
        jail.pending.clear()
        if jail.served and not culprit.fresh:
            culprit.fresh = True
            rest.insert(0, culprit)
        elif jail.died_of_memory:
            culprit.fail(
                MemoryExceeded(f"The code wanted more memory than the {self._settings.memory_mib} MiB a run may have")
            )
        else:
            culprit.fail(SandboxError("The process that ran the code ended unexpectedly"))
        self._requeue(rest)

    def _start_failed(self, jail: Jail) -> None:
        self._failed_starts += 1
        if jail.refusal is not None:
            self._refusal = jail.refusal
        elif self._failed_starts < _START_ATTEMPTS:
            return
        message = self._refusal or f"Jails do not start on this machine (exit status {jail.process.returncode})"
        waiting, self._waiting = self._waiting, {}
        for call in (call for calls in waiting.values() for call in calls):
            call.fail(SandboxUnavailable(message))

    def _requeue(self, calls: list[Call]) -> None:
        """Calls of a jail that is gone come before those that wait already."""
        for call in reversed(calls):
            if not call.future.done():
                self._waiting.setdefault(call.project_id, deque()).appendleft(call)

    # --- Watching the time ---

    def _watch(self) -> None:
        if self._tick_handle is None:
            self._tick_handle = self._loop.call_later(_QUICK_TICK_S, self._tick)

    def _tick(self) -> None:
        self._tick_handle = None
        now = time.monotonic()
        for jail in self._jails:
            if jail.project_id is not None:
                jail.renew_cpu_limit(now)
        busy = [jail for jail in self._jails if jail.pending]
        for jail in busy:
            self._look_at(jail, now)
        if busy or self._waiting:
            queued = any(len(jail.pending) > 1 for jail in busy)
            self._tick_handle = self._loop.call_later(_QUICK_TICK_S if queued else _CALM_TICK_S, self._tick)
        elif self._idle_handle is None:
            self._idle_handle = self._loop.call_later(_IDLE_KEPT_S, self._drop_idle)

    def _look_at(self, jail: Jail, now: float) -> None:
        running = jail.running()
        if running != jail.watched:
            jail.watched, jail.watched_since = running, now
            return
        ran_s = now - jail.watched_since
        call = jail.pending[running]
        if ran_s > call.limit_s:
            self._overran(jail, running, call)
        elif len(jail.pending) > 1 and ran_s * 1000 > self._settings.spill_after_ms:
            self._spill(jail)

    def _overran(self, jail: Jail, running: int, call: Call) -> None:
        del jail.pending[running]
        rest = list(jail.pending.values())
        jail.pending.clear()
        self._drop(jail)
        call.fail(CodeTimedOut(f"The code ran longer than its limit of {call.limit_s:g} s and was stopped"))
        self._requeue(rest)
        self._place_waiting()

    def _spill(self, jail: Jail) -> None:
        """Moves the calls behind a slow one to another jail of the project:

        an idle one, or a new one if there is room.
        """
        project_id = jail.project_id or ""
        others = [other for other in self._leases.get(project_id, ()) if not other.pending and not other.retiring]
        target = others[0] if others else self._new_lease(project_id)
        if target is None:
            return
        jail.slow = True
        for call in jail.take_waiting():
            if not call.future.done():
                target.send(call)
        self._keep_spare()

    def _drop_idle(self) -> None:
        """Nobody needs warm jails of a minute ago: their memory goes back, the spare stays."""
        self._idle_handle = None
        before = self._loop.time() - _IDLE_KEPT_S
        for jail in [jail for jail in self._jails if jail.project_id is not None and not jail.pending]:
            if jail.used_at <= before:
                self._drop(jail)
        if any(jail.project_id is not None for jail in self._jails) and self._tick_handle is None:
            self._idle_handle = self._loop.call_later(_IDLE_KEPT_S, self._drop_idle)


def lay_out_icu(folder: str) -> str:
    """V8's language and time zone data, under the names that its library looks for. Gives the file they all lead to."""
    spec = find_spec("_STPyV8")
    if spec is None or spec.origin is None:
        return ""
    file = Path(spec.origin).parent / "stpyv8-icu" / "icudtl.dat"
    for version in range(70, 90):
        os.symlink(file, Path(folder) / f"icudt{version}l.dat")
    os.chmod(folder, 0o711)  # noqa: S103 - jails have a user of their own and must reach the links, nothing else
    return str(file.resolve())
