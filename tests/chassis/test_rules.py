"""What each rule beside a field refuses, and how the faults are named."""

from typing import Any

import pytest

from chassis.errors import Fault, Invalid, StartRefused
from chassis.rules import rules_of
from chassis.server import RpcServer
from chassis.settings import ServiceSettings
from tests.chassis.conftest import KEY, Channels
from tests.chassis.echo import pb, pb_grpc

UUID = "0190e3a1-0000-7000-8000-000000000000"


def valid(**changes: Any) -> Any:
    fields: dict[str, Any] = {
        "needed": "x",
        "sized": "abc",
        "bytes_text": "abcd",
        "data": b"ab",
        "shaped": "abc",
        "id": UUID,
        "number": 5,
        "ids": [UUID],
        "colour": 1,
        "inner": pb.Ruled.Inner(name="abc"),
    }
    return pb.Ruled(**{**fields, **changes})


def faults(message: Any) -> dict[str, str]:
    rules = rules_of(message.DESCRIPTOR)
    assert rules is not None
    found: list[Fault] = []
    rules.collect(message, "", found)
    return {fault.field: fault.message for fault in found}


@pytest.mark.parametrize(
    "message",
    [
        valid(),
        valid(shaped=""),
        valid(maybe_id=UUID),
        valid(number=-1),
        valid(number=10),
        valid(ids=[UUID, UUID]),
        valid(inners=[pb.Ruled.Inner(name="ab")]),
    ],
)
def test_what_keeps_the_rules_passes(message: Any) -> None:
    assert faults(message) == {}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"needed": ""}, {"needed": "is required"}),
        ({"sized": "a"}, {"sized": "must be at least 2 characters long, is 1"}),
        ({"sized": "abcde"}, {"sized": "must be at most 4 characters long, is 5"}),
        ({"bytes_text": "äää"}, {"bytes_text": "must be at most 4 bytes, is 6"}),
        ({"data": b"abc"}, {"data": "must be at most 2 bytes, is 3"}),
        ({"shaped": "ABC"}, {"shaped": "must match ^[a-z]+$"}),
        ({"id": ""}, {"id": "must be a UUID in lower case with hyphens"}),
        ({"id": UUID.upper()}, {"id": "must be a UUID in lower case with hyphens"}),
        ({"id": UUID + "\n"}, {"id": "must be a UUID in lower case with hyphens"}),
        ({"maybe_id": ""}, {"maybe_id": "must be a UUID in lower case with hyphens"}),
        ({"number": -2}, {"number": "must be at least -1, is -2"}),
        ({"number": 11}, {"number": "must be at most 10, is 11"}),
        ({"ids": []}, {"ids": "needs at least 1 items, has 0"}),
        ({"ids": [UUID] * 3}, {"ids": "takes at most 2 items, has 3"}),
        ({"ids": [UUID, "x"]}, {"ids[1]": "must be a UUID in lower case with hyphens"}),
        ({"colour": 0}, {"colour": "is required"}),
        ({"colour": 9}, {"colour": "is not a known value"}),
        ({"inner": None}, {"inner": "is required"}),
        ({"inner": pb.Ruled.Inner(name="abcd")}, {"inner.name": "must be at most 3 characters long, is 4"}),
        ({"inners": [{"name": "a"}, {"name": "abcd"}]}, {"inners[1].name": "must be at most 3 characters long, is 4"}),
    ],
)
def test_each_rule_refuses(changes: dict[str, Any], expected: dict[str, str]) -> None:
    assert faults(valid(**changes)) == expected


def test_a_message_inside_itself_is_checked_all_the_way_down() -> None:
    inner = pb.Ruled.Inner(again=valid(needed=""))
    assert faults(valid(inner=inner)) == {"inner.again.needed": "is required"}


def test_types_without_rules_have_none_to_run() -> None:
    assert rules_of(pb.Words.DESCRIPTOR) is None


async def test_all_faults_of_a_request_come_in_one_answer_that_never_repeats_the_values(channels: Channels) -> None:
    with pytest.raises(Invalid) as caught:
        await channels.stub().Check(valid(needed="", sized="my-secret", colour=0))
    error = caught.value
    assert error.reason == "REQUEST_INVALID"
    assert [fault.field for fault in error.faults] == ["needed", "sized", "colour"]
    assert "my-secret" not in error.message + str(error.faults)
    assert (await channels.stub().Check(valid())).text == "valid"


def test_a_service_with_an_rpc_that_declares_no_permission_does_not_start(tmp_path: Any) -> None:
    server = RpcServer("echo", ServiceSettings(home=tmp_path), KEY)
    with pytest.raises(StartRefused, match="UndeclaredService/Nothing declares no permission"):
        pb_grpc.add_UndeclaredServiceServicer_to_server(pb_grpc.UndeclaredServiceServicer(), server)
