"""The endpoints this replica answers for, in memory: no query stands between a webhook and its verification.

Decides: what is known about a flow, which change counts (the newest), what happens to a flow whose triggers cannot be
applied, how a miss is looked up (once, shared, bounded), and how long "there is no such flow" is believed.
Leaves: hearing of changes to endpoint_feed.py, the texts of secrets to connection_secrets.py.
Holds: an endpoint whose secret is missing refuses (fail closed); only a newer change replaces an older one.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from millrace.flows.v1.version_pb2 import GetLiveFlowRequest, LiveFlow

from chassis.clock import Clock
from chassis.errors import Invalid, NotFound
from services.webhooks.connection_secrets import ConnectionSecrets, secret_text
from services.webhooks.refusals import busy
from services.webhooks.triggers import WebhookTrigger, proof_of, webhook_triggers
from services.webhooks.verify import Proof

if TYPE_CHECKING:
    from millrace.flows.v1.version_pb2_grpc import VersionServiceAsyncStub

_FLOW_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_REST_KEPT = 20_000
_REST_S = 60.0
"""How long a flow that takes nothing (disabled, deleted) is believed to; its change comes by the topic anyway."""
_MISSING_S = 2.0
"""How long a flow that does not exist is believed not to: it may be created any moment."""
_LOOK_UPS_AT_ONCE = 32
_REREAD_S = 2.0


def is_flow_id(text: str) -> bool:
    """Whether a text from a path has the form of an id; nothing else is asked about."""
    return _FLOW_ID.fullmatch(text) is not None


State = Literal["live", "disabled", "deleted", "missing"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One webhook trigger of a live flow, with what it takes to verify a call."""

    trigger: WebhookTrigger
    proof: Proof | None
    failure: str = ""
    """Why it refuses everything, when `proof` is None."""


@dataclass(frozen=True, slots=True)
class FlowEndpoints:
    """What is known about a flow."""

    flow_id: str
    state: State
    project_id: str = ""
    version_id: str = ""
    change_number: int = 0
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    known_at: float = 0.0
    """Monotonic time of the last look at flows."""
    secrets_at: float = 0.0
    """Monotonic time of the last look at connections."""
    failure: str = ""
    """Why the whole flow refuses, when its triggers could not be read."""

    @property
    def uses_connections(self) -> bool:
        """Whether a secret of it comes from a connection, so that it may change without a publish."""
        return any(endpoint.trigger.secret_references for endpoint in self.endpoints.values())


Tasks = dict[str, asyncio.Task[FlowEndpoints]]


class Endpoints:
    """Flows by id: all live ones, and a bounded memory of those that take nothing."""

    def __init__(self, versions: "VersionServiceAsyncStub", secrets: ConnectionSecrets, clock: Clock) -> None:
        self._versions = versions
        self._secrets = secrets
        self._clock = clock
        self._live: dict[str, FlowEndpoints] = {}
        self._rest: OrderedDict[str, FlowEndpoints] = OrderedDict()
        self._looking_up: Tasks = {}
        self._rereading: Tasks = {}

    def get(self, flow_id: str) -> FlowEndpoints | None:
        """What is known about a flow; None when it must be looked up."""
        found = self._live.get(flow_id)
        if found is not None:
            return found
        rest = self._rest.get(flow_id)
        if rest is None:
            return None
        kept_s = _MISSING_S if rest.state == "missing" else _REST_S
        return rest if self._clock.monotonic() - rest.known_at < kept_s else None

    def live(self) -> list[FlowEndpoints]:
        """All live flows."""
        return list(self._live.values())

    async def look_up(self, flow_id: str) -> FlowEndpoints:
        """Ask flows about one flow; calls for the same one share the question. Raises: Unavailable."""
        if not is_flow_id(flow_id):
            return FlowEndpoints(flow_id, "missing")
        if (known := self.get(flow_id)) is not None:
            return known
        if flow_id not in self._looking_up and len(self._looking_up) >= _LOOK_UPS_AT_ONCE:
            raise busy("Too many unknown webhook addresses are being looked up.")
        return await _shared(self._looking_up, flow_id, lambda: self._ask(flow_id))

    async def _ask(self, flow_id: str) -> FlowEndpoints:
        try:
            answer = await self._versions.GetLiveFlow(GetLiveFlowRequest(flow_id=flow_id))
        except NotFound:
            self.forget(flow_id)
            return FlowEndpoints(flow_id, "missing")
        await self.apply(answer.flow)
        return self.get(flow_id) or FlowEndpoints(flow_id, "missing")

    async def apply(self, flow: LiveFlow) -> str:
        """Take a flow as flows has it, unless what is known is newer. Return why its triggers cannot be live, if so.

        A flow that cannot be applied keeps its older endpoints; one without any refuses with that reason.
        Raises: Unavailable when a connection cannot be read now; nothing was changed, ask again.
        """
        if self._knows_newer(flow):
            return ""
        now = self._clock.monotonic()
        if flow.deleted or not flow.enabled:
            state: State = "deleted" if flow.deleted else "disabled"
            self._remember(FlowEndpoints(flow.flow_id, state, flow.project_id, "", flow.change_number, {}, now))
            return ""
        resolved: dict[str, Endpoint] = {}
        try:
            resolved = await self._resolve(flow.project_id, webhook_triggers(flow.document))
            failure = " ".join(endpoint.failure for endpoint in resolved.values() if endpoint.failure)
        except Invalid as error:
            failure = error.message
        if self._knows_newer(flow):
            return ""  # applied while the connections were read
        known = self._live.get(flow.flow_id)
        if not failure or known is None:
            change = flow.change_number
            self._remember(
                FlowEndpoints(
                    flow.flow_id, "live", flow.project_id, flow.version_id, change, resolved, now, now, failure
                )
            )
        return failure

    def _knows_newer(self, flow: LiveFlow) -> bool:
        known = self._live.get(flow.flow_id) or self._rest.get(flow.flow_id)
        return known is not None and known.state != "missing" and known.change_number > flow.change_number

    def forget(self, flow_id: str) -> None:
        """There is no such flow (any more)."""
        self._remember(FlowEndpoints(flow_id, "missing", known_at=self._clock.monotonic()))

    async def reread_secrets(self, flow_id: str) -> FlowEndpoints:
        """Read the connections of a flow anew, at most every two seconds, once for all who ask meanwhile.

        Raises: Unavailable; the old secrets stay.
        """
        flow = self.get(flow_id) or FlowEndpoints(flow_id, "missing")
        recent = self._clock.monotonic() - flow.secrets_at < _REREAD_S
        if flow_id not in self._rereading and (recent or not flow.uses_connections):
            return flow
        return await _shared(self._rereading, flow_id, lambda: self._reread(flow))

    async def _reread(self, flow: FlowEndpoints) -> FlowEndpoints:
        marked = replace(flow, secrets_at=self._clock.monotonic())
        self._replace(flow, marked)  # also when auth is away: a flood of bad signatures must not become one of calls
        resolved = await self._resolve(flow.project_id, [endpoint.trigger for endpoint in flow.endpoints.values()])
        fresh = replace(marked, endpoints=resolved)
        self._replace(marked, fresh)
        return fresh

    async def resolved(self, project_id: str, document: bytes) -> dict[str, Endpoint]:
        """The endpoints of a frozen draft, which is not live. Raises: Invalid TRIGGER_INVALID; Unavailable."""
        return await self._resolve(project_id, webhook_triggers(document))

    async def _resolve(self, project_id: str, triggers: list[WebhookTrigger]) -> dict[str, Endpoint]:
        references = {reference for trigger in triggers for reference in trigger.secret_references}
        texts = await self._secrets.resolve(project_id, references)
        return {trigger.id: _endpoint(trigger, texts) for trigger in triggers}

    def _remember(self, flow: FlowEndpoints) -> None:
        if flow.state == "live":
            self._rest.pop(flow.flow_id, None)
            self._live[flow.flow_id] = flow
            return
        self._live.pop(flow.flow_id, None)
        self._rest[flow.flow_id] = flow
        self._rest.move_to_end(flow.flow_id)
        if len(self._rest) > _REST_KEPT:
            self._rest.popitem(last=False)

    def _replace(self, seen: FlowEndpoints, fresh: FlowEndpoints) -> None:
        # A change that was applied meanwhile is newer than what was read for the flow as it was seen.
        if self._live.get(seen.flow_id) is seen:
            self._live[seen.flow_id] = fresh


async def _shared(tasks: Tasks, flow_id: str, ask: Callable[[], Coroutine[None, None, FlowEndpoints]]) -> FlowEndpoints:
    """The outcome of one question, asked once for all who want it at the same time; who leaves does not end it."""
    task = tasks.get(flow_id)
    if task is None:
        task = tasks[flow_id] = asyncio.get_running_loop().create_task(ask())

        def answered(done: asyncio.Task[FlowEndpoints]) -> None:
            del tasks[flow_id]
            if not done.cancelled():
                done.exception()  # those who wait have it; seen here too, because all of them may have left

        task.add_done_callback(answered)
    return await asyncio.shield(task)


def _endpoint(trigger: WebhookTrigger, texts: dict[str, bytes]) -> Endpoint:
    try:
        secrets = tuple(secret_text(trigger.id, reference, texts) for reference in trigger.secret_references)
        return Endpoint(trigger, proof_of(trigger, secrets))
    except Invalid as error:
        return Endpoint(trigger, None, error.message)
