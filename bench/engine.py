"""What the engine alone costs: microseconds of one interpreter, no I/O, no jail, no flush.

    python -m bench.engine

Cases: a run of two pure steps (code, data action); a pure step in a flow of 200; an item of a loop over 10,000;
recovery of that loop from its journal. Payload: 256 B. Median of runs.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from statistics import median

import msgspec

from flowlang.model import Flow
from services.executor.engine.commands import RunAction, RunCode
from services.executor.engine.events import ActionFinished, CodeFinished
from services.executor.engine.journal import AnyEntry, decode_chunk, encode_chunk
from services.executor.engine.machine import Machine
from services.executor.engine.plan import Plan, compile_plan

RUN_ID = bytes(range(16))
PAYLOAD = msgspec.json.encode({"body": {"order": 17, "text": "x" * 200, "lines": list(range(5))}})
LONG = msgspec.json.encode({"body": {"lines": list(range(10_000))}})
OUTPUT = b'{"total":1742.5,"id":17}'


def plan_of(steps: list[dict[str, object]]) -> Plan:
    """The plan of a flow of these steps; all actions are pure."""
    flow = msgspec.json.decode(msgspec.json.encode({"name": "bench", "steps": steps}), type=Flow)
    return compile_plan(flow, "version", lambda _step: ("pure", "retry"))


def code(step_id: str, source: str) -> dict[str, object]:
    """A code step that reads one plain path."""
    return {"id": step_id, "kind": "code", "source": "-", "input": {"raw": "{{" + source + "}}"}}


def drive(plan: Plan, payload: bytes) -> list[AnyEntry]:
    """Run to the end; what one flush would write."""
    machine, commands = Machine.start(plan, RUN_ID, "hook", payload, 1_000)
    entries = machine.take_entries()
    while machine.status == "running":
        command = commands[0]
        if isinstance(command, RunCode):
            commands = machine.handle(CodeFinished(command.ref, OUTPUT, b"", 1_001))
        elif isinstance(command, RunAction):
            commands = machine.handle(ActionFinished(command.ref, OUTPUT, 1_001))
        else:
            raise TypeError(f"{command!r} is not part of this bench")
    return entries + machine.take_entries()


def microseconds(work: Callable[[], object], times: int) -> float:
    """Median over five rounds of one call, in microseconds."""
    rounds = []
    for _ in range(5):
        began = time.process_time_ns()
        for _ in range(times):
            work()
        rounds.append((time.process_time_ns() - began) / times / 1000)
    return median(rounds)


def main() -> None:
    """Measure, print a table and one line of JSON."""
    data: dict[str, object] = {
        "id": "data",
        "kind": "action",
        "piece": "data",
        "action": "pick",
        "input": {"total": "{{order.total}}"},
    }
    two = plan_of([code("order", "trigger.body"), data])
    many = plan_of([code("s0", "trigger.body"), *(code(f"s{n}", f"s{n - 1}.total") for n in range(1, 200))])
    body = [code("inside", "each.item")]
    loop = plan_of([{"id": "each", "kind": "loop", "items": "{{trigger.body.lines}}", "steps": body}])
    chunk = encode_chunk(drive(loop, LONG))
    results = {
        "engine_two_step_run_us": microseconds(lambda: drive(two, PAYLOAD), 2_000),
        "engine_two_step_chunk_us": microseconds(lambda: encode_chunk(drive(two, PAYLOAD)), 2_000),
        "engine_pure_step_us": microseconds(lambda: drive(many, PAYLOAD), 20) / 200,
        "engine_loop_item_us": microseconds(lambda: drive(loop, LONG), 1) / 10_000,
        "engine_recover_10000_items_us": microseconds(
            lambda: Machine.recover(loop, RUN_ID, decode_chunk(chunk)[:-2], 2_000), 1
        ),
    }
    for name, value in results.items():
        print(f"{name:34} {value:12.1f}")
    print(
        json.dumps({"python": platform.python_version()} | {name: round(value, 1) for name, value in results.items()})
    )


if __name__ == "__main__":
    main()
