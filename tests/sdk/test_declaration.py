"""Declaring pieces: what a declaration gives, and which mistakes are found while the piece is imported."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal, cast

import msgspec
import pytest
from millrace_sdk import (
    ActionFailed,
    Checkbox,
    Context,
    Date,
    DeclarationError,
    Dropdown,
    File,
    FileRef,
    Http,
    Input,
    Json,
    JsonValue,
    ListOf,
    LongText,
    Number,
    ObjectOf,
    Piece,
    Secret,
    StoreOperation,
    Text,
    action,
    describe,
    store_action,
    trigger,
)


class Address(msgspec.Struct):
    city: Annotated[str, Text("City")]


class EveryInput(Input):
    line: Annotated[str, Text("Line", "One line.", min_length=1, max_length=9, pattern="^a")]
    text: Annotated[str, LongText("Text")]
    token: Annotated[str, Secret("Token", show_when={"flag": ["true"]})]
    count: Annotated[int, Number("Count", ge=1, le=5)]
    when: Annotated[datetime, Date("When")]
    file: Annotated[FileRef, File("File")]
    items: Annotated[list[int], ListOf("Items", max_length=3)]
    address: Annotated[Address, ObjectOf("Address")]
    flag: Annotated[bool, Checkbox("Flag")] = False
    any: Annotated[Json, JsonValue("Any")] = None
    choice: Annotated[Literal["a", "b"], Dropdown("Choice", labels={"a": "First"})] = "a"


@action(title="Every", summary="Takes every kind of field.", effect="read", on_interruption="fail")
async def every(ctx: Context, input: EveryInput) -> Json:
    return input.line


def schema_of(made: Any) -> dict[str, Any]:
    piece = Piece(name="p", version="1.0.0", title="P", summary="s", actions=[made])
    actions = cast("list[dict[str, Any]]", describe(piece)["actions"])
    return cast("dict[str, Any]", actions[0]["input_schema"])


def test_each_kind_of_field_tells_the_form_what_it_is() -> None:
    properties = schema_of(every)["properties"]
    kinds = {name: field["x-millrace"]["kind"] for name, field in properties.items()}
    assert kinds == {
        "line": "text",
        "text": "long_text",
        "token": "secret",
        "count": "number",
        "when": "date",
        "file": "file",
        "items": "list",
        "address": "object",
        "flag": "checkbox",
        "any": "json",
        "choice": "dropdown",
    }


def test_the_schema_stands_alone_and_carries_limits_titles_and_defaults() -> None:
    schema = schema_of(every)
    properties = schema["properties"]
    assert "$ref" not in msgspec.json.encode(schema).decode()
    assert schema["required"] == ["line", "text", "token", "count", "when", "file", "items", "address"]
    assert schema["additionalProperties"] is False
    assert properties["line"]["title"] == "Line"
    assert (properties["line"]["minLength"], properties["line"]["maxLength"], properties["line"]["pattern"]) == (
        1,
        9,
        "^a",
    )
    assert (properties["count"]["minimum"], properties["count"]["maximum"]) == (1, 5)
    assert properties["address"]["title"] == "Address"
    assert properties["address"]["properties"]["city"]["title"] == "City"
    assert properties["file"]["required"] == ["id", "name"]
    assert (properties["choice"]["enum"], properties["choice"]["default"]) == (["a", "b"], "a")
    assert properties["choice"]["x-millrace"]["labels"] == {"a": "First"}
    assert properties["token"]["x-millrace"]["show_when"] == {"flag": ["true"]}


def test_the_catalogue_entry_has_the_agreed_shape() -> None:
    start = trigger("start", title="Start", summary="Starts.", input=EveryInput)
    entry = describe(Piece(name="p", version="1.0.0", title="P", summary="s", actions=[every], triggers=[start]))
    assert list(entry) == ["name", "version", "title", "summary", "triggers", "actions"]
    [described_trigger] = cast("list[dict[str, Any]]", entry["triggers"])
    [described_action] = cast("list[dict[str, Any]]", entry["actions"])
    assert list(described_trigger) == ["name", "title", "summary", "input_schema"]
    assert list(described_action) == ["name", "title", "summary", "input_schema", "effect", "on_interruption"]
    assert (described_action["effect"], described_action["on_interruption"]) == ("read", "fail")


async def test_an_action_is_still_the_function_it_was_made_from() -> None:
    @action(title="t", summary="s", name="doubled")
    async def double(ctx: Context, input: Short) -> Json:
        return input.a * 2

    ctx = Context(http=cast("Http", None), idempotency_key="", run_id="", step_id="", attempt=1)
    assert await double(ctx, Short(a=4)) == 8
    assert double.name == "doubled"
    assert (double.effect, double.on_interruption) == ("effect", "retry")


class Short(Input):
    a: int


class Leaf(msgspec.Struct):
    inner: Leaf | None = None


class Endless(Input):
    leaf: Leaf


def _sync() -> object:
    def run(ctx: Context, input: EveryInput) -> Json:
        return None

    return action(title="t", summary="s")(cast("Any", run))


def _no_input() -> object:
    async def run(ctx: Context) -> Json:
        return None

    return action(title="t", summary="s")(cast("Any", run))


def _untyped() -> object:
    async def run(ctx: Context, input) -> Json:  # type: ignore[no-untyped-def]  # the mistake under test
        return None

    return action(title="t", summary="s")(run)


def _wrong_type() -> object:
    async def run(ctx: Context, input: Address) -> Json:
        return None

    return action(title="t", summary="s")(cast("Any", run))


def _local_type() -> object:
    class Local(Input):
        a: int

    async def run(ctx: Context, input: Local) -> Json:
        return None

    return action(title="t", summary="s")(run)


def _store_with_context() -> object:
    def run(ctx: Context, input: EveryInput) -> StoreOperation:
        return StoreOperation(kind="get", key="k")

    return store_action(title="t", summary="s")(cast("Any", run))


@pytest.mark.parametrize(
    "mistake",
    [
        _sync,
        _no_input,
        _untyped,
        _wrong_type,
        _local_type,
        _store_with_context,
        lambda: trigger("Catch It", title="t", summary="s", input=EveryInput),
        lambda: Piece(name="HTTP", version="1.0.0", title="t", summary="s"),
        lambda: Piece(name="http", version="1.0", title="t", summary="s"),
        lambda: Piece(name="http", version="1.0.0", title="t", summary="s", actions=[every, every]),
    ],
)
def test_a_mistake_in_a_declaration_is_found_at_once(mistake: Callable[[], object]) -> None:
    with pytest.raises(DeclarationError):
        mistake()


def test_an_input_that_contains_itself_has_no_schema() -> None:
    @action(title="t", summary="s")
    async def endless(ctx: Context, input: Endless) -> Json:
        return None

    with pytest.raises(TypeError, match="Leaf contains itself"):
        schema_of(endless)


def test_an_unknown_action_is_told_with_those_there_are() -> None:
    piece = Piece(name="p", version="1.0.0", title="P", summary="s", actions=[every])
    with pytest.raises(ActionFailed, match="It has: every"):
        piece.action("evry")
