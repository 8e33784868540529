"""Making objects: set, merge, pick.

Decides: what becomes of a name that stands on both sides, or nowhere.
Leaves: finding places to paths.py.
"""

from __future__ import annotations

from typing import Annotated, Literal

from millrace_sdk import (
    Checkbox,
    Context,
    Dropdown,
    Input,
    InputInvalid,
    Json,
    ListOf,
    ObjectOf,
    action,
)

from .paths import Missing, look_up, parts_of


class SetInput(Input):
    """The fields of the new object."""

    fields: Annotated[dict[str, Json], ObjectOf("Fields", "Names with values; expressions keep their type.")]


@action(name="set", title="Set fields", summary="Makes an object of the given fields.", effect="pure")
async def set_fields(ctx: Context, input: SetInput) -> Json:  # noqa: ARG001 - every action takes a context
    """The fields, as one object for the steps that follow."""
    return dict(input.fields)


class MergeInput(Input):
    """Which objects become one."""

    objects: Annotated[list[dict[str, Json]], ListOf("Objects", "Later ones win.", min_length=1, max_length=100)]
    deep: Annotated[bool, Checkbox("Merge inner objects too", "Otherwise a later one replaces an earlier one.")] = False


@action(title="Merge objects", summary="Makes one object of several; later fields win.", effect="pure")
async def merge(ctx: Context, input: MergeInput) -> Json:  # noqa: ARG001 - every action takes a context
    """One object of several. Lists are replaced, never joined."""
    merged: dict[str, Json] = {}
    for other in input.objects:
        merged = _deeply(merged, other) if input.deep else {**merged, **other}
    return merged


def _deeply(below: dict[str, Json], above: dict[str, Json]) -> dict[str, Json]:
    merged = dict(below)
    for name, value in above.items():
        earlier = merged.get(name)
        merged[name] = _deeply(earlier, value) if isinstance(earlier, dict) and isinstance(value, dict) else value
    return merged


class PickInput(Input):
    """What to take out of which object."""

    object: Annotated[dict[str, Json], ObjectOf("Object")]
    fields: Annotated[
        list[str],
        ListOf("Fields", "Places as customer.name; the result has them by this name.", min_length=1, max_length=500),
    ]
    missing: Annotated[
        Literal["skip", "null", "fail"],
        Dropdown("If one is missing", labels={"skip": "Leave it out", "null": "Set it to null", "fail": "Fail"}),
    ] = "skip"


@action(title="Pick fields", summary="Takes some fields out of an object.", effect="pure")
async def pick(ctx: Context, input: PickInput) -> Json:  # noqa: ARG001 - every action takes a context
    """An object of the chosen places. Raises InputInvalid for a missing one, if asked to."""
    picked: dict[str, Json] = {}
    for field in input.fields:
        value = look_up(input.object, parts_of(field, "fields"))
        if not isinstance(value, Missing):
            picked[field] = value
        elif input.missing == "fail":
            raise InputInvalid(f"The object has no {field!r}.", field="fields")
        elif input.missing == "null":
            picked[field] = None
    return picked
