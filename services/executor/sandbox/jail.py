"""A jail: the process that runs users' code.

Decides: the order of a jail's life (load, warm up, walls, serve) and when gathered answers leave.
Leaves: the walls to walls.py, running code to engine.py, limits of time to the executor, which kills from outside.

Started as a process of its own (never a fork of the executor: V8's threads and the executor's memory must not come
along), with an environment of three harmless names, and with three descriptors: requests, answers, the shared page.
Everything is loaded before the walls stand; afterwards not even an import would work.
"""

from __future__ import annotations

import fcntl
import gc
import json
import mmap
import os
import sys
import time
from typing import NoReturn

from services.executor.sandbox import walls, wire
from services.executor.sandbox.engine import Engine, ExpressionSet, Unit

_READ_BYTES = 1 << 18
_GATHER_S = 0.001
_GATHER_BYTES = 1 << 16


class Refused(Exception):  # noqa: N818 - an answer to the executor
    """Why this machine must not run code."""


def main() -> None:
    """Becomes a jail and serves until the executor closes the pipe."""
    try:
        page, engine, max_output = enter()
    except Refused as refusal:
        refuse(refusal)
    try:
        Server(page, engine, max_output).serve()
    except MemoryError:
        os._exit(wire.EXIT_MEMORY)


def refuse(refusal: Refused) -> NoReturn:
    """Tells the executor why not, and ends."""
    _write_all(walls.ANSWERS_FD, wire.frame(0, wire.REFUSED, str(refusal).encode()))
    sys.exit(wire.EXIT_REFUSED)


def enter() -> tuple[memoryview, Engine, int]:
    """From a fresh process to one behind walls: reads the set-up, loads and warms V8, raises the walls, reports."""
    length, _, _ = wire.HEADER.unpack(_read_exactly(wire.HEADER.size))
    setup = json.loads(_read_exactly(length))
    walls.die_with_parent(setup["parent"])
    page_fd = fcntl.fcntl(setup["page_fd"], fcntl.F_DUPFD, 10)  # out of the way of the answers' number
    os.dup2(1, walls.ANSWERS_FD)
    os.dup2(2, 1)  # whatever prints goes nowhere and cannot forge an answer
    page = memoryview(mmap.mmap(page_fd, wire.PAGE_BYTES)).cast("Q")
    os.closerange(walls.ANSWERS_FD + 1, 1024)  # the mapping stays
    status = os.open("/proc/self/status", os.O_RDONLY)

    # The first, wider ring stands before V8 starts its thread, which inherits it. V8 looks for its time zone and
    # language data in several places; all but the file named by ICU_DATA are out of reach now, and that one is
    # mapped, not copied into each jail.
    abi = walls.restrict_files(setup["icu_file"])
    engine = Engine(setup["heap_mib"], tuple(setup["limits"]))
    engine.warm_up()
    gc.collect()
    gc.freeze()
    report = _raise_walls(setup, status, abi)
    _write_all(walls.ANSWERS_FD, wire.frame(0, wire.READY, json.dumps(report).encode()))
    return page, engine, setup["limits"][0]


def _raise_walls(setup: dict[str, object], status: int, abi: int) -> list[str]:
    """The second ring. Gives the names of what stands."""
    seccomp = bytes.fromhex(str(setup["filter"]))
    own_user = walls.become(int(str(setup["uid"])))
    walls.die_with_parent(int(str(setup["parent"])))  # changing the user had cleared it
    if abi:
        abi = walls.restrict_files()
    walls.limit_resources(status, int(str(setup["memory_bytes"])), int(str(setup["cpu_s"])))
    os.close(status)
    report = [f"landlock {abi}"] if abi else []
    if own_user:
        report.append("own user")
    if walls.restrict_calls(seccomp):
        report.append("seccomp")
    if not abi and "seccomp" not in report and not setup["allow_without_walls"]:
        raise Refused(
            "Code cannot run on this machine: its kernel offers neither Landlock nor seccomp to hold users' code in. "
            "Use a kernel with one of them (Linux 5.13 or later has both), or install libseccomp2."
        )
    return report


class Server:
    """Takes requests off the pipe, many in a read, and gives answers back, many in a write."""

    def __init__(self, page: memoryview, engine: Engine, max_output_bytes: int) -> None:
        self._page = page
        self._engine = engine
        self._max_output_bytes = max_output_bytes
        self._answers: list[bytes] = []
        self._gathered_bytes = 0
        self._gathering_since = 0.0

    def serve(self) -> None:
        """Until the pipe is closed."""
        pending = b""
        while True:
            read = os.read(walls.REQUESTS_FD, _READ_BYTES)
            if not read:
                return
            pending = self._take(pending + read if pending else read)
            if len(pending) > _READ_BYTES:
                pending = self._rest_of_frame(pending)

    def _rest_of_frame(self, start: bytes) -> bytes:
        """Reads a long frame to its end in one go; adding piece to piece would copy it again and again."""
        length = wire.HEADER.size + wire.HEADER.unpack_from(start)[0]
        return self._take(start + _read_exactly(length - len(start)))

    def _take(self, data: bytes) -> bytes:
        """Serves all whole frames; gives back the part of a frame at the end."""
        at, end, header = 0, len(data), wire.HEADER
        while end - at >= header.size:
            length, number, sort = header.unpack_from(data, at)
            start = at + header.size
            if start + length > end:
                break
            self._serve_one(number, sort, data[start : start + length])
            at = start + length
        self._flush()
        return data[at:]

    def _serve_one(self, number: int, sort: int, body: bytes) -> None:
        if sort == wire.LEARN_CODE:
            self._engine.learn_code(number, Unit(*json.loads(body)))
            return
        if sort == wire.LEARN_EXPRESSIONS:
            self._engine.learn_expressions(number, ExpressionSet(*json.loads(body)))
            return
        if self._page[wire.SKIP_AFTER] < number <= self._page[wire.SKIP_UP_TO]:
            return
        self._page[wire.RUNNING] = number
        if sort == wire.RUN:
            unit = wire.NUMBER.unpack_from(body)[0]
            answer = self._engine.run(unit, body[wire.NUMBER.size :].decode())
        elif sort == wire.EVALUATE:
            known, *documents = wire.unpack_parts(body)
            answer = self._engine.evaluate(
                wire.NUMBER.unpack(known)[0], [document.decode("utf-8", "surrogatepass") for document in documents]
            )
        else:
            sources = [(kind, text) for kind, text in json.loads(body)]
            answer = chr(wire.CHECKED) + json.dumps(self._engine.check(sources))
        encoded = answer.encode("utf-8", "surrogatepass")
        if len(encoded) > self._max_output_bytes:
            encoded = self._measured(encoded)
        self._answer(number, encoded)

    def _measured(self, answer: bytes) -> bytes:
        """V8 counted characters; the limit is in bytes, and the console does not count."""
        console, _, output = answer.partition(b"\n") if answer[0] == wire.VALUE_WITH_CONSOLE else (b"", b"", answer[1:])
        if len(output) <= self._max_output_bytes:
            return answer
        lines = json.loads(console[1:]) if console else []
        message = f"The value is larger than the {self._max_output_bytes} bytes allowed"
        return b"i" + json.dumps({"message": message, "console": lines}).encode()

    def _answer(self, number: int, answer: bytes) -> None:
        self._answers.append(wire.HEADER.pack(len(answer) - 1, number, answer[0]))
        self._answers.append(answer[1:])
        self._gathered_bytes += len(answer)
        now = time.monotonic()
        if len(self._answers) == 2:
            self._gathering_since = now
        if self._gathered_bytes > _GATHER_BYTES or now - self._gathering_since > _GATHER_S:
            self._flush()

    def _flush(self) -> None:
        if self._answers:
            _write_all(walls.ANSWERS_FD, b"".join(self._answers))
            self._answers.clear()
            self._gathered_bytes = 0


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _read_exactly(length: int) -> bytes:
    parts = []
    while length:
        part = os.read(walls.REQUESTS_FD, min(length, 1 << 20))
        if not part:
            sys.exit(0)
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
