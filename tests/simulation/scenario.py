"""One schedule: events are accepted, executors work, die, stall and come back.

Then everything is judged from outside.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from uuid import UUID

import structlog
from millrace.events.v1.events_pb2 import ExecutionBatch, ExecutionRequest

from chassis.documents import pack
from chassis.log.port import OutRecord
from flowlang.documents import read_yaml
from services.executor.active import ActiveRun
from services.executor.driver.actions import Actions
from services.executor.driver.connections import Connections, ResolvedSecrets
from services.executor.driver.installed import INSTALLED
from services.executor.engine.commands import Answer
from services.executor.engine.journal import Responded, RunFinished, decode_chunk
from services.executor.engine.plan import Plan, compile_plan
from services.executor.incarnation import Incarnation
from services.executor.sandbox import CodeResult, CodeUnit
from services.executor.store import Fenced, RunStatus
from services.executor.surroundings import surroundings_at
from tests.simulation.sim_log import PARTITIONS, SimLog
from tests.simulation.sim_store import Mutations, SimDatabase, SimStore
from tests.simulation.virtual import VirtualClock, VirtualLoop, run_virtual
from tests.simulation.world import Ledger, WorldHttp

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # a schedule tells by its outcome

FLOWS = {
    "line": """
        {name: line, steps: [
          {id: first, kind: code, source: x, input: {a: "{{trigger.n}}"}},
          {id: reply, kind: respond, body: "{{first}}"},
          {id: tell, kind: action, piece: http, action: request, retry: {max_attempts: 9, initial_interval: 1s},
           input: {method: POST, url: "http://world", body: ["{{run.id}}", tell, -1]}},
          {id: again, kind: action, piece: http, action: request, retry: {max_attempts: 9, initial_interval: 1s},
           input: {method: POST, url: "http://world", body: ["{{run.id}}", again, -1]}}]}""",
    "loop": """
        {name: loop, steps: [
          {id: each, kind: loop, items: "{{trigger.items}}", concurrency: 2, steps: [
            {id: ship, kind: action, piece: http, action: request, retry: {max_attempts: 9, initial_interval: 1s},
             input: {method: POST, url: "http://world", body: ["{{run.id}}", ship, "{{each.index}}"]}}]}]}""",
    "count": """
        {name: count, steps: [
          {id: look, kind: action, piece: http, action: request, input: {method: GET, url: "http://world"}},
          {id: add, kind: action, piece: store, action: increment, input: {key: total, by: 1}},
          {id: more, kind: action, piece: store, action: increment, input: {key: total, by: 1}},
          {id: last, kind: code, source: x, input: {total: "{{more.value}}"}}]}""",
}
EXPECTED_EFFECTS = {"line": [("tell", -1), ("again", -1)], "loop": [("ship", 0), ("ship", 1), ("ship", 2)], "count": []}
PAYLOAD = pack(b'{"n":1,"items":["a","b","c"]}')
PROJECT = "01900000-0000-7000-8000-000000000001"
SETTLE_S = 60.0
"""How long the world may take to come to rest after the last trouble, in virtual seconds."""

_ACTIONS = Actions(INSTALLED, WorldHttp(Ledger(SimDatabase(Mutations())), Random(0), 0))


def _plan(name: str) -> Plan:
    flow = read_yaml(FLOWS[name].encode())
    return compile_plan(flow, name, lambda step: _ACTIONS.effect(step.piece, step.action, step.input))


PLANS = {name: _plan(name) for name in FLOWS}


class SimSandbox:
    """Code is the identity; it takes a moment."""

    def __init__(self, random: Random) -> None:
        self._random = random

    async def run_code(self, project_id: str, unit: CodeUnit, input: bytes, timeout_ms: int) -> CodeResult:
        await asyncio.sleep(self._random.random() * 0.01)
        return CodeResult(input, ())


class SimPlans:
    async def get(self, version_ids: set[str]) -> dict[str, Plan]:
        return {version_id: PLANS[version_id] for version_id in version_ids}


class NoConnections(Connections):
    def __init__(self) -> None:
        self._none = ResolvedSecrets()

    async def resolve(self, project_id: str, slots: object) -> ResolvedSecrets:
        return self._none


class NoFiles:
    async def read(self, project_id: str, file_id: str) -> bytes:
        raise AssertionError("payloads of the simulation are small")


@dataclass
class Outcome:
    """What a schedule came to."""

    seed: int
    runs: int = 0
    crashes: int = 0
    interrupted: int = 0
    broken: list[str] = field(default_factory=list)


class Schedule:
    """The course that a seed gives."""

    def __init__(self, seed: int, mutations: Mutations | None = None) -> None:
        self.random = Random(seed)
        self.loop = VirtualLoop()
        self.clock = VirtualClock(self.loop)
        self.database = SimDatabase(mutations or Mutations())
        self.ledger = Ledger(self.database)
        self.trouble = self.random.choice([0.0, 0.01, 0.05])
        self.outcome = Outcome(seed)
        self.accepted: dict[bytes, str] = {}
        self.processes: dict[int, tuple[asyncio.Task[None], SimStore]] = {}
        self.incarnations: dict[SimStore, Incarnation] = {}
        self.log: SimLog

    def run(self) -> Outcome:
        """Run it to its end in virtual time, and judge."""
        run_virtual(self._course(), self.loop)
        self._judge()
        return self.outcome

    async def _course(self) -> None:
        self.log = SimLog()
        slots = self.random.choice([1, 1, 2])
        async with asyncio.TaskGroup() as group:
            accepting = group.create_task(self._accept())
            for slot in range(slots):
                self._start(slot, slots)
            await self._make_trouble(slots)
            await accepting
        self.trouble = 0.0
        for slot in range(slots):
            if self.processes[slot][0].done():
                self._start(slot, slots)
        deadline = self.loop.now + SETTLE_S
        while self.loop.now < deadline and not self._at_rest():
            await asyncio.sleep(0.25)
            for slot in range(slots):
                if self.processes[slot][0].done():
                    self._start(slot, slots)
        for task, _ in self.processes.values():
            task.cancel()

    def accept(self, flow: str) -> OutRecord:
        """Accept one event for a flow; the record that has to reach the log."""
        run_id = UUID(int=(0x01A2 << 112) | (7 << 76) | (2 << 62) | self.random.getrandbits(60)).bytes
        self.accepted[run_id] = flow
        request = ExecutionRequest(
            run_id=run_id,
            project_id=PROJECT,
            flow_id=PROJECT,
            version_id=flow,
            trigger_id="t",
            payload=PAYLOAD,
            reply_to="replica",
        )
        return OutRecord(run_id, ExecutionBatch(requests=[request]).SerializeToString())

    async def _accept(self) -> None:
        for _ in range(self.random.randint(1, 4)):
            await asyncio.sleep(self.random.random() * 0.2)
            record = self.accept(self.random.choice(sorted(FLOWS)))
            for _ in range(self.random.choice([1, 1, 2])):  # a publisher that got no answer publishes again
                self.log.append(record, self.random.randrange(PARTITIONS))

    def _start(self, slot: int, slots: int) -> None:
        store = SimStore(self.database, self.random, self.trouble)
        self.processes[slot] = asyncio.get_running_loop().create_task(self._live(store, sole=slots == 1)), store

    async def _live(self, store: SimStore, *, sole: bool) -> None:
        """One process from its start to its death."""
        http = WorldHttp(self.ledger, self.random, self.trouble)
        epoch = await store.begin_incarnation("simulated", sole=sole)
        http.epoch = epoch
        incarnation = Incarnation(
            epoch=epoch,
            store=store,
            log_=self.log,
            clock=self.clock,
            plans=SimPlans(),  # type: ignore[arg-type]  # the part of Plans that the heart uses
            sandbox=SimSandbox(self.random),  # type: ignore[arg-type]  # code and nothing else
            actions=Actions(INSTALLED, http),
            connections=NoConnections(),
            files=NoFiles(),
            answer=self._answered,
            told=lambda _: None,
            surroundings=surroundings_at("http://simulated"),
            max_active=self.random.choice([2, 100]),
        )
        self.incarnations[store] = incarnation
        try:
            await incarnation.run()
        except* Fenced:
            pass  # the process ends; whoever supervises starts another

    def _answered(self, run: ActiveRun, _: Answer) -> None:
        """I5: what is answered must be in the journal already."""
        chunks = self.database.journal.get(run.identity.run_id, [])
        if not any(isinstance(entry, Responded | RunFinished) for chunk in chunks for entry in decode_chunk(chunk)):
            self.ledger.broken.append(f"I5: {run.identity.run_id.hex()} was answered before its answer was durable")

    async def _make_trouble(self, slots: int) -> None:
        for _ in range(self.random.choice([0, 1, 2, 3])):
            await asyncio.sleep(self.random.random() * self.random.choice([0.05, 0.5, 3.0]))
            slot = self.random.randrange(slots)
            task, store = self.processes[slot]
            match self.random.choice(["kill", "kill", "stop", "stall", "anew"]):
                case "kill" | "stop" as how:
                    if how == "stop" and store in self.incarnations and not task.done():
                        await self.incarnations[store].hand_over(self.random.random())
                    else:
                        self.outcome.crashes += 1
                    task.cancel()
                    await asyncio.sleep(self.random.random() * 0.5)
                    self._start(slot, slots)
                case "stall":
                    store.stalled_until = self.loop.now + self.random.random() * 8.0
                case "anew":
                    if self._all_stored():
                        self.log.make_anew()

    def _all_stored(self) -> bool:
        """A topic may be made anew once nothing accepted is in it alone."""
        return self.accepted.keys() <= self.database.journal.keys()

    def _at_rest(self) -> bool:
        return self.accepted.keys() <= self.database.ended.keys()

    def _judge(self) -> None:
        broken = list(self.ledger.broken)
        self.outcome.runs = len(self.accepted)
        for run_id, flow in self.accepted.items():
            name = f"{flow} {run_id.hex()}"
            if run_id not in self.database.journal:
                broken.append(f"I1: {name} is lost")
            elif run_id not in self.database.ended:
                broken.append(f"stuck: {name} is {self.database.live[run_id]}")
            elif self.database.ended[run_id] is RunStatus.SUCCEEDED:
                text_id = str(UUID(bytes=run_id))
                for step_id, item in EXPECTED_EFFECTS[flow]:
                    place = (text_id, step_id, item)
                    keys = self.ledger.by_place.get(place, set())
                    if not keys:
                        broken.append(f"I3: {name} succeeded without {place}")
                    if len(keys) > self.ledger.refused.get(place, 0) + 1:
                        broken.append(f"I4: {place} was sent under {len(keys)} keys")
        self._judge_counter(broken)
        broken += [f"a task died: {failure}" for failure in self.loop.failures]
        self.outcome.interrupted = len(self.ledger.arrivals) - len({arrival.key for arrival in self.ledger.arrivals})
        self.outcome.broken = broken

    def _judge_counter(self, broken: list[str]) -> None:
        """The store piece: each of its steps counted exactly once."""
        counted = sum(int(value) for value in self.database.values.values())
        finished = [
            flow for run_id, flow in self.accepted.items() if self.database.ended.get(run_id) is RunStatus.SUCCEEDED
        ]
        everything_ended = len(finished) == len(self.accepted)
        if everything_ended and counted != 2 * finished.count("count"):
            broken.append(f"store: counted {counted}, expected {2 * finished.count('count')}")
