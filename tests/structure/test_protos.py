"""The wire as documentation: everything has a comment, every RPC a permission, every request field a bound."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from grpc_tools import _proto, protoc  # type: ignore[import-untyped]  # grpcio-tools ships no types
from millrace.options.v1 import options_pb2

PROTO = Path(__file__).resolve().parent.parent.parent / "proto"
Path_ = tuple[int, ...]
BOUNDABLE = {FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_BYTES}
# Field numbers of descriptor.proto, which source locations are made of.
MESSAGE, ENUM, SERVICE, NESTED_MESSAGE, NESTED_ENUM, FIELD, VALUE, METHOD = 4, 5, 6, 3, 4, 2, 2, 2


@pytest.fixture(scope="module")
def files() -> list[FileDescriptorProto]:
    sources = sorted(str(path.relative_to(PROTO)) for path in (PROTO / "millrace").rglob("*.proto"))
    with tempfile.NamedTemporaryFile() as out:
        arguments = ["protoc", f"-I{PROTO}", f"-I{_proto.__path__[0]}", "--include_source_info"]
        assert protoc.main([*arguments, f"--descriptor_set_out={out.name}", *sources]) == 0
        return list(FileDescriptorSet.FromString(Path(out.name).read_bytes()).file)


def _messages(
    messages: "list[DescriptorProto]", prefix: str, number: int, at: Path_ = ()
) -> Iterator[tuple[str, Path_, DescriptorProto]]:
    for index, message in enumerate(messages):
        if message.options.map_entry:
            continue
        here = (*at, number, index)
        yield prefix + message.name, here, message
        yield from _messages(list(message.nested_type), f"{prefix}{message.name}.", NESTED_MESSAGE, here)


def _things(file: FileDescriptorProto) -> Iterator[tuple[str, Path_]]:
    """Everything that needs a comment: its name, and where the comment would be."""
    enums: list[tuple[str, Path_, EnumDescriptorProto]] = [
        ("", (ENUM, index), enum) for index, enum in enumerate(file.enum_type)
    ]
    for name, at, message in _messages(list(file.message_type), "", MESSAGE):
        yield name, at
        yield from ((f"{name}.{field.name}", (*at, FIELD, index)) for index, field in enumerate(message.field))
        enums += [(f"{name}.", (*at, NESTED_ENUM, index), enum) for index, enum in enumerate(message.enum_type)]
    for prefix, at, enum in enums:
        yield prefix + enum.name, at
        yield from ((f"{prefix}{value.name}", (*at, VALUE, index)) for index, value in enumerate(enum.value))
    for index, service in enumerate(file.service):
        yield service.name, (SERVICE, index)
        for place, method in enumerate(service.method):
            yield f"{service.name}.{method.name}", (SERVICE, index, METHOD, place)


def test_everything_is_commented(files: list[FileDescriptorProto]) -> None:
    silent = []
    for file in files:
        commented = {tuple(found.path) for found in file.source_code_info.location if found.leading_comments.strip()}
        silent += [f"{file.name}: {name}" for name, at in _things(file) if at not in commented]
    assert silent == []


def test_every_rpc_says_who_may_call_it(files: list[FileDescriptorProto]) -> None:
    open_to_whom = [
        f"{file.name}: {service.name}.{method.name}"
        for file in files
        for service in file.service
        for method in service.method
        if not method.options.Extensions[options_pb2.permission]
    ]
    assert open_to_whom == []


def test_every_rpc_has_a_request_and_an_answer_of_its_own(files: list[FileDescriptorProto]) -> None:
    shared = [
        f"{file.name}: {service.name}.{method.name}"
        for file in files
        for service in file.service
        for method in service.method
        if method.input_type.rpartition(".")[2] != f"{method.name}Request"
        or method.output_type.rpartition(".")[2] != f"{method.name}Response"
    ]
    assert shared == []


def test_every_request_field_is_bounded(files: list[FileDescriptorProto]) -> None:
    """Text and bytes by length or form, lists by their number of items. Streams check what they carry themselves."""
    known = {
        f".{file.package}.{name}": found
        for file in files
        for name, _, found in _messages(list(file.message_type), "", MESSAGE)
    }
    unbounded = {
        fault
        for file in files
        for service in file.service
        for method in service.method
        if not method.client_streaming
        and method.options.Extensions[options_pb2.permission] != options_pb2.PERMISSION_INTERNAL
        for fault in _unbounded(method.input_type, known, set())
    }
    assert sorted(unbounded) == []


def _unbounded(name: str, known: dict[str, DescriptorProto], seen: set[str]) -> Iterator[str]:
    if name in seen or name not in known:
        return
    seen.add(name)
    for field in known[name].field:
        rules = field.options.Extensions[options_pb2.rules]
        where = f"{name[1:]}.{field.name}"
        if field.label == FieldDescriptorProto.LABEL_REPEATED:
            if not rules.max_items:
                yield where
        elif field.type in BOUNDABLE and not (rules.max_length or rules.max_bytes or rules.pattern or rules.uuid):
            yield where
        if field.type == FieldDescriptorProto.TYPE_MESSAGE:
            yield from _unbounded(field.type_name, known, seen)
