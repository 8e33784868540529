"""The service of `echo.proto`, compiled when first imported, and a servicer that does what a request says."""

import asyncio
import importlib
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc_tools  # type: ignore[import-untyped]  # ships no types
from grpc_tools import protoc

from chassis.errors import Fault, Invalid, Limited, NotFound
from chassis.identity import current_caller

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]


def _compiled() -> tuple[Any, Any]:
    folders = [Path(grpc_tools.__file__).parent / "_proto", _HERE, _ROOT / "proto"]
    with tempfile.TemporaryDirectory(prefix="echo-stubs-") as out:
        arguments = [*(f"-I{folder}" for folder in folders), f"--python_out={out}", f"--grpc_python_out={out}"]
        assert protoc.main(["protoc", *arguments, "echo.proto"]) == 0
        sys.path.insert(0, out)
        try:
            return importlib.import_module("echo_pb2"), importlib.import_module("echo_pb2_grpc")
        finally:
            sys.path.remove(out)


pb, pb_grpc = _compiled()
Words = pb.Words
_Servicer: Any = pb_grpc.EchoServiceServicer

_RAISED: dict[str, Exception] = {
    "not found": NotFound("THING_NOT_FOUND", "There is no thing 7.", thing=7, names=["a", "b"]),
    "faults": Invalid("BAD", "Wrong.", faults=[Fault(step_id="s", field="f", message="m", reason="R")]),
    "many faults": Invalid("BAD", "Wrong.", faults=[Fault(field=f"f{n}", message="ü" * 100) for n in range(1000)]),
    "limited": Limited("SLOW_DOWN", "Wait.", retry_after_s=2.5),
    "boom": RuntimeError("secret inside"),
}


class Echo(_Servicer):  # type: ignore[misc]  # compiled when the tests run, hence without types
    """Notes what happened in `seen`; `gate` holds those who are told to wait."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.gate = asyncio.Event()
        self.waiting = 0

    async def _wait(self) -> None:
        self.waiting += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            raise

    async def _obey(self, request: Any, context: Any) -> Any:
        text = request.text
        if text in _RAISED:
            raise _RAISED[text]
        if text == "wait":
            await self._wait()
        elif text == "mutate":
            request.text = "changed by the handler"
        elif text == "trailing":
            context.set_trailing_metadata((("seen", "yes"),))
        elif text == "abort":
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now", (("why", "because"),))
        elif text == "metadata":
            return Words(list=[f"{key}={value}" for key, value in context.invocation_metadata() if key == "colour"])
        elif text == "deadline":
            return Words(text="yes" if (context.time_remaining() or 0) > 0 else "no")
        elif text == "caller":
            caller = current_caller()
            return Words(text=f"{caller.kind}:{caller.id}:{caller.project_id}:{sorted(caller.permissions)}")
        return Words(text=text)

    async def Say(self, request: Any, context: Any) -> Any:
        return await self._obey(request, context)

    GetWords = Internal = Self = ReadFlow = Say

    async def Check(self, request: Any, context: Any) -> Any:
        return Words(text="valid")

    async def Tell(self, request: Any, context: Any) -> AsyncIterator[Any]:
        answer = Words()
        for text in request.list:
            answer.text = text  # one message reused: what was sent before must not change
            yield answer
        yield await self._obey(request, context)

    ReadFlows = Tell

    async def Write(self, request: Any, context: Any) -> None:
        for text in request.list:
            await context.write(Words(text=text))

    async def Gather(self, request_iterator: Any, context: Any) -> Any:
        return Words(list=[(await self._obey(request, context)).text async for request in request_iterator])

    async def Talk(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:
        async for request in request_iterator:
            yield await self._obey(request, context)
        self.seen.append("talk ended")


add_to_server = pb_grpc.add_EchoServiceServicer_to_server
Stub = pb_grpc.EchoServiceStub
