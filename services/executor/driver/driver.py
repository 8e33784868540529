"""Carries out the engine's commands and hands it what came of them.

Decides: what runs side by side (one task a run, one more for each further command of it), where a barrier is waited
for, how failures of the world become events of the engine.
Leaves: what happens next to engine/, durability to flush.py, code to sandbox/, pieces to actions.py.
Holds: I4 (an effect waits for its barrier), I5 and I3 (answers and ends wait for the flush; `settled` in
incarnation.py sends them).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import msgspec
import structlog
from millrace_sdk import ActionFailed, StoreOperation, apply_store_operation

from chassis.clock import Clock
from chassis.failpoints import reach
from flowlang.expressions import Resolved, SecretSlot, fill_secrets
from services.executor.active import ActiveRun
from services.executor.driver.actions import ActionCall, Actions
from services.executor.driver.connections import Connections, ResolvedSecrets
from services.executor.driver.failures import code_failed, connection_missing, console_document, expression_failed
from services.executor.engine.commands import Answer, Command, Evaluate, Finish, RunAction, RunCode, Sleep
from services.executor.engine.events import (
    ActionFinished,
    CodeFinished,
    Evaluated,
    Event,
    StepFailedEvent,
    TimedOut,
    Woken,
)
from services.executor.engine.journal import RunError
from services.executor.engine.run import end_answer
from services.executor.flush import Flusher
from services.executor.sandbox import CodeUnit, OutputInvalid, Sandbox, SandboxError
from services.executor.store import RunEnd, RunStatus, StoreKey

LOOK_S = 0.02
EXPRESSION_TIMEOUT_MS = 5_000
"""Longest time of one step's expressions, in milliseconds."""

log = structlog.get_logger()
_encode = msgspec.json.encode
_decode = msgspec.json.decode


class Driver:
    """Drives the active runs of one incarnation."""

    def __init__(
        self, flusher: Flusher, sandbox: Sandbox, actions: Actions, connections: Connections, clock: Clock
    ) -> None:
        self._flusher = flusher
        self._sandbox = sandbox
        self._actions = actions
        self._connections = connections
        self._clock = clock
        self._parked = False
        self._calls = 0

    def park(self) -> None:
        """Begin nothing new any more: this incarnation ends."""
        self._parked = True

    async def calls_ended(self) -> None:
        """Return when no call is under way."""
        while self._calls:  # noqa: ASYNC110 - at the end of a life, once; an event would cost every call
            await asyncio.sleep(LOOK_S)

    def begin(self, run: ActiveRun, commands: Sequence[Command]) -> None:
        """Start to work on a run, with what its machine asked for first."""
        task = asyncio.get_running_loop().create_task(self._carry_out(run, commands))
        run.tasks.add(task)
        task.add_done_callback(run.tasks.discard)

    async def _carry_out(self, run: ActiveRun, commands: Sequence[Command]) -> None:
        try:
            while commands:
                work = [command for command in commands if not self._noted(run, command)]
                self._flusher.note(run, urgent=run.end is not None or run.answer is not None or run.machine.wants_flush)
                if not work:
                    return
                for other in work[1:]:
                    self.begin(run, [other])
                commands = await self._perform(run, work[0])
            self._flusher.note(run, urgent=run.machine.wants_flush)
        except asyncio.CancelledError:
            raise
        except Exception:  # a fault of ours must not leave the run hanging: it ends, named, with its stack in the log
            log.exception("run_broke", run_id=run.identity.run_id.hex(), flow_id=run.identity.flow_id)
            error = RunError("", (), 0, "INTERNAL_ERROR", "Millrace failed while it worked on this run.")
            if run.machine.answer is None and run.answer is None:
                run.answer = end_answer("internal_error", error, b"", run.machine.entries_made)
            self._end(run, RunStatus.INTERNAL_ERROR, error)
            self._flusher.note(run, urgent=True)

    def _noted(self, run: ActiveRun, command: Command) -> bool:
        """Answers and ends are not work: they leave with the flush that makes them durable."""
        match command:
            case Answer():
                if run.answer is None:
                    run.answer = command
            case Finish():
                self._end(run, RunStatus[command.status.upper()], command.error)
            case _:
                return False
        return True

    def _end(self, run: ActiveRun, status: RunStatus, error: RunError | None) -> None:
        encoded = msgspec.msgpack.encode(error) if error is not None else None
        run.end = RunEnd(status, self._clock.now_ms(), run.machine.steps_finished, encoded)
        current = asyncio.current_task()
        for task in run.tasks:
            if task is not current:
                task.cancel()

    async def _perform(self, run: ActiveRun, command: Command) -> Sequence[Command]:
        """Do one thing in the world and answer what the machine asks for next."""
        if command.after:
            await self._flusher.durable(run, command.after)  # I4: the barrier
        if self._parked:
            await asyncio.Event().wait()  # the process ends: nothing new is begun
        self._calls += 1
        try:
            return await self._do(run, command)
        finally:
            self._calls -= 1

    async def _do(self, run: ActiveRun, command: Command) -> Sequence[Command]:
        match command:
            case RunCode():
                event = await self._run_code(run, command)
            case Evaluate():
                event = await self._evaluate(run, command)
            case RunAction() if command.transactional:
                return await self._operate(run, command)
            case RunAction():
                event = await self._run_action(run, command)
            case Sleep():
                self._calls -= 1
                try:
                    await asyncio.sleep(max(0, command.until_ms - self._clock.now_ms()) / 1000)
                finally:
                    self._calls += 1
                event = Woken(command.ref, self._clock.now_ms())
            case _:
                raise AssertionError(f"{command!r} is no work")
        return run.machine.handle(event)

    async def _evaluate(self, run: ActiveRun, command: Evaluate) -> Event:
        identity = run.identity
        try:
            values = await self._sandbox.evaluate(
                identity.project_id, identity.version_id, command.expressions, command.scope, EXPRESSION_TIMEOUT_MS
            )
        except SandboxError as error:
            return expression_failed(
                command.ref, error, command.expressions, EXPRESSION_TIMEOUT_MS, self._clock.now_ms()
            )
        return Evaluated(command.ref, values, self._clock.now_ms())

    async def _run_code(self, run: ActiveRun, command: RunCode) -> Event:
        identity = run.identity
        secrets = await self._secrets(run, command.secrets)
        if secrets.missing:
            return connection_missing(command.ref, secrets.missing, self._clock.now_ms())
        step = run.plan.code(command.step_id)
        unit = CodeUnit(identity.version_id, step.id, step.language, step.source)
        try:
            result = await self._sandbox.run_code(
                identity.project_id, unit, _filled(command.input, command.secrets, secrets), command.timeout_ms
            )
            output = secrets.masker.document(result.output)
        except SandboxError as error:
            return code_failed(command.ref, error, secrets.masker, self._clock.now_ms())
        except msgspec.DecodeError as error:  # `JSON.rawJSON` writes numbers that no reader takes
            unreadable = OutputInvalid(f"The value cannot be read: {error}", result.console)
            return code_failed(command.ref, unreadable, secrets.masker, self._clock.now_ms())
        console = console_document(result.console, secrets.masker)
        return CodeFinished(command.ref, output, console, self._clock.now_ms())

    async def _run_action(self, run: ActiveRun, command: RunAction) -> Event:
        secrets = await self._secrets(run, command.secrets)
        if secrets.missing:
            return connection_missing(command.ref, secrets.missing, self._clock.now_ms())
        if command.after:
            await self._flusher.durable(run, 0)  # I8: the lease, once more: resolving secrets may have taken its time
        await reach("action.before_call")
        try:
            outcome = await self._actions.run(_call(run, command, secrets))
        except ActionFailed as failure:
            return self._failed(command, failure)
        await reach("action.after_call")
        console = _encode(outcome.log) if outcome.log else b""
        return ActionFinished(command.ref, outcome.output, self._clock.now_ms(), console)

    def _failed(self, command: RunAction, failure: ActionFailed) -> Event:
        if failure.kind == "TIMED_OUT":
            return TimedOut(command.ref, self._clock.now_ms())
        return StepFailedEvent(
            command.ref,
            failure.kind,
            failure.message,
            retryable=failure.retryable,
            now_ms=self._clock.now_ms(),
            retry_after_ms=int((failure.retry_after_s or 0) * 1000),
            unknown=failure.outcome_unknown,
        )

    async def _operate(self, run: ActiveRun, command: RunAction) -> Sequence[Command]:
        """A step of the store piece: its operation and its outcome are one commit."""
        secrets = await self._secrets(run, command.secrets)
        if secrets.missing:
            return run.machine.handle(connection_missing(command.ref, secrets.missing, self._clock.now_ms()))
        try:
            operation = self._actions.operation(_call(run, command, secrets))
        except ActionFailed as failure:
            return run.machine.handle(self._failed(command, failure))
        scope = run.identity.flow_id if operation.scope == "flow" else ""
        key = StoreKey(run.identity.project_id, scope, operation.key)
        return await self._flusher.operate(run, key, partial(self._changed, command, operation))

    def _changed(
        self, command: RunAction, operation: StoreOperation, current: bytes | None
    ) -> tuple[bytes | None, Event]:
        try:
            value, output = apply_store_operation(_decode(current) if current is not None else None, operation)
        except ActionFailed as failure:
            return current, self._failed(command, failure)
        stored = _encode(value) if value is not None else None
        return stored, ActionFinished(command.ref, _encode(output), self._clock.now_ms())

    async def _secrets(self, run: ActiveRun, slots: Sequence[SecretSlot]) -> ResolvedSecrets:
        return await self._connections.resolve(run.identity.project_id, slots)


def _filled(document: bytes, slots: Sequence[SecretSlot], secrets: ResolvedSecrets) -> bytes:
    if not slots:
        return document
    return _encode(fill_secrets(Resolved(_decode(document), tuple(slots)), secrets.values))


def _call(run: ActiveRun, command: RunAction, secrets: ResolvedSecrets) -> ActionCall:
    return ActionCall(
        piece=command.piece,
        action=command.action,
        input=_filled(command.input, command.secrets, secrets),
        key=command.key,
        run_id=run.identity.run_id,
        project_id=run.identity.project_id,
        step_id=command.step_id,
        attempt=command.attempt,
        timeout_ms=command.timeout_ms,
        secrets=secrets.texts,
    )
