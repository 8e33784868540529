"""Senders that wait for the answer of their run (`…/sync`).

Decides: who waits for which run and how long; when to stop trusting the stream and ask the executors (no word after
half a second, or a stream that broke); what of a flow's answer goes out over HTTP.
Leaves: when an answer is durable to the executor (I5: it sends and shows only committed answers).
Holds: a lost stream makes an answer slower, never wrong; a time-out ends the wait, not the run.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from millrace.executor.v1 import run_pb2
from millrace.webhooks.v1 import ingest_pb2 as pb

from chassis.clock import Clock
from chassis.errors import MillraceError
from chassis.ids import text_of
from services.webhooks.refusals import SyncTimeout
from services.webhooks.replies import RUN_ID_HEADER, Reply
from services.webhooks.settings import WebhooksSettings

if TYPE_CHECKING:
    from millrace.executor.v1.run_pb2_grpc import RunServiceAsyncStub

_SWEEP_S = 0.1
_POLL_MS = 400
_POLL_IDS = 1000
_log = structlog.get_logger("webhooks.answers")

_NOT_THE_FLOWS_TO_SET = frozenset(
    [
        "alt-svc",
        "clear-site-data",
        "connection",
        "content-length",
        "date",
        "keep-alive",
        "nel",
        "proxy-authenticate",
        "proxy-connection",
        "public-key-pins",
        "report-to",
        "reporting-endpoints",
        "server",
        "service-worker-allowed",
        "set-cookie",
        "set-cookie2",
        "strict-transport-security",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "content-security-policy",
        "x-content-type-options",
        "x-millrace-run-id",
    ]
)
"""Framing belongs to the gateway; what a browser keeps for this whole host (cookies, policies, other addresses of it)
belongs to the builder, not to a flow's author.
"""
_MAX_HEADERS = 100
_MAX_HEADER_BYTES = 8 * 1024
"""Of one value: clients read heads of 16 to 64 KiB and drop the whole answer for a larger one."""
_GUARDS = (
    pb.Header(name="content-security-policy", value="sandbox"),
    pb.Header(name="x-content-type-options", value="nosniff"),
)


@dataclass(slots=True)
class _Waiting:
    reply: Reply
    until: float
    ask_from: float


class Answers:
    """The requests that wait in this replica, by run id."""

    def __init__(self, runs: "RunServiceAsyncStub", clock: Clock, settings: WebhooksSettings) -> None:
        self._runs = runs
        self._clock = clock
        self._timeout_s = settings.webhook_sync_timeout_s
        self._ask_after_s = settings.webhook_poll_after_s
        self._waiting: dict[bytes, list[_Waiting]] = {}
        self._someone = asyncio.Event()

    def wait(self, run_id: bytes, reply: Reply, *, ask_now: bool = False) -> None:
        """Answer this request with the run's answer. `ask_now`: the run may be over already (a duplicate)."""
        now = self._clock.monotonic()
        ask_from = now if ask_now else now + self._ask_after_s
        self._waiting.setdefault(run_id, []).append(_Waiting(reply, now + self._timeout_s, ask_from))
        self._someone.set()

    def forget(self, run_id: bytes, reply: Reply) -> bool:
        """Stop waiting because someone else answers; False when the request was answered already."""
        waiting = self._waiting.get(run_id, [])
        kept = [one for one in waiting if one.reply is not reply]
        if kept:
            self._waiting[run_id] = kept
        else:
            self._waiting.pop(run_id, None)
        return len(kept) < len(waiting)

    def deliver(self, answers: Iterable[pb.RunAnswer]) -> None:
        """Take the answers of runs; those nobody waits for are ignored (the request timed out)."""
        for answer in answers:
            for one in self._waiting.pop(answer.run_id, ()):
                one.reply.replies.put(_outbound(answer, one.reply.sequence))

    def distrust(self) -> None:
        """A stream of answers broke: whatever was on it may be lost, so ask for every run that is waited for."""
        now = self._clock.monotonic()
        for waiting in self._waiting.values():
            for one in waiting:
                one.ask_from = min(one.ask_from, now)

    async def sweep(self) -> None:
        """End the waits that took too long, for ever."""
        while True:
            await self._someone.wait()
            now = self._clock.monotonic()
            for run_id, waiting in list(self._waiting.items()):
                late = [one for one in waiting if one.until <= now]
                for one in late:
                    self.forget(run_id, one.reply)
                    _time_out(run_id, one.reply, self._timeout_s)
            if not self._waiting:
                self._someone.clear()
            await asyncio.sleep(_SWEEP_S)

    async def ask(self) -> None:
        """Ask the executors for the answers that no stream brought, for ever."""
        while True:
            await self._someone.wait()
            now = self._clock.monotonic()
            overdue = [run for run, waiting in self._waiting.items() if any(one.ask_from <= now for one in waiting)]
            async with asyncio.TaskGroup() as asking:
                for start in range(0, len(overdue), _POLL_IDS):
                    asking.create_task(self._ask_for(overdue[start : start + _POLL_IDS]))
            await asyncio.sleep(_SWEEP_S)

    async def _ask_for(self, run_ids: list[bytes]) -> None:
        request = run_pb2.AwaitAnswersRequest(run_ids=run_ids, timeout_ms=_POLL_MS)
        try:
            found = await self._runs.AwaitAnswers(request, timeout=_POLL_MS / 1000 + 5)
        except MillraceError as error:
            _log.warning("answers_not_found", reason=error.reason, waiting=len(run_ids))
            return
        self.deliver(
            pb.RunAnswer(run_id=one.run_id, status=one.status, headers=_pairs(one.headers), body=one.body)
            for one in found.answers
        )


def _pairs(flat: Iterable[str]) -> list[pb.Header]:
    texts = iter(flat)
    return [pb.Header(name=name, value=value) for name, value in zip(texts, texts, strict=False)]


def _outbound(answer: pb.RunAnswer, sequence: int) -> pb.OutboundAnswer:
    headers = [header for header in answer.headers if _may_leave(header)][:_MAX_HEADERS]
    headers += (*_GUARDS, pb.Header(name=RUN_ID_HEADER, value=text_of(answer.run_id)))
    status = answer.status if 200 <= answer.status <= 599 else 500
    return pb.OutboundAnswer(sequence=sequence, status=status, headers=headers, body=answer.body)


def _may_leave(header: pb.Header) -> bool:
    name, value = header.name.lower(), header.value
    if name in _NOT_THE_FLOWS_TO_SET or not name or not name.isascii() or len(name) + len(value) > _MAX_HEADER_BYTES:
        return False
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        return False
    return all(letter == "\t" or " " <= letter <= "~" or "\x80" <= letter <= "\xff" for letter in value)


def _time_out(run_id: bytes, reply: Reply, timeout_s: float) -> None:
    text = text_of(run_id)
    message = f"The run did not answer within {timeout_s:g} s. It goes on; look it up by its id."
    reply.refused(SyncTimeout("SYNC_TIMEOUT", message, run_id=text))
