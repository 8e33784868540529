"""Working on texts: join, split, parse_json, format_date.

Decides: what each makes of its text; that what cannot be read is an error that says where.
Leaves: patterns and templates to expressions, which run in the jail.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from millrace_sdk import (
    Checkbox,
    Context,
    Dropdown,
    Input,
    InputInvalid,
    Json,
    ListOf,
    LongText,
    Number,
    Text,
    action,
)

Scalar = str | int | float | bool
MAX_PARTS = 100_000


class JoinInput(Input):
    """Which texts become one."""

    items: Annotated[list[Scalar | None], ListOf("Texts", "Numbers are written as they are, null as nothing.")]
    separator: Annotated[str, Text("Between them", max_length=100)] = ", "


@action(title="Join texts", summary="Makes one text of a list; gives {text}.", effect="pure")
async def join(ctx: Context, input: JoinInput) -> Json:  # noqa: ARG001 - every action takes a context
    """One text of many."""
    return {"text": input.separator.join(_plain(item) for item in input.items)}


def _plain(item: Scalar | None) -> str:
    if item is None:
        return ""
    return item if isinstance(item, str) else msgspec.json.encode(item).decode()


class SplitInput(Input):
    """Where to cut which text."""

    text: Annotated[str, LongText("Text")]
    separator: Annotated[str, Text("Separator", "Taken as it is, not as a pattern.", min_length=1, max_length=100)] = (
        ","
    )
    trim: Annotated[bool, Checkbox("Remove space around the parts")] = True
    skip_empty: Annotated[bool, Checkbox("Leave out empty parts")] = False
    limit: Annotated[int, Number("At most so many parts", "The last one holds the rest.", ge=1, le=MAX_PARTS)] = (
        MAX_PARTS
    )


@action(title="Split a text", summary="Makes a list of one text; gives {items, count}.", effect="pure")
async def split(ctx: Context, input: SplitInput) -> Json:  # noqa: ARG001 - every action takes a context
    """Many texts of one."""
    parts = input.text.split(input.separator, input.limit - 1)
    if input.trim:
        parts = [part.strip() for part in parts]
    if input.skip_empty:
        parts = [part for part in parts if part]
    return {"items": list(parts), "count": len(parts)}


class ParseJsonInput(Input):
    """Which text to read."""

    text: Annotated[str, LongText("Text")]


@action(title="Read JSON", summary="Makes a value of a JSON text; gives {value}.", effect="pure")
async def parse_json(ctx: Context, input: ParseJsonInput) -> Json:  # noqa: ARG001 - every action takes a context
    """A value of a text. Raises InputInvalid with the position of the fault."""
    try:
        return {"value": msgspec.json.decode(input.text)}
    except msgspec.MsgspecError as error:
        raise InputInvalid(f"The text is no JSON: {error}.", field="text") from None
    except RecursionError:
        raise InputInvalid("The JSON is nested too deeply.", field="text") from None


DateForm = Literal["iso", "date", "time", "epoch_s", "epoch_ms"]


class FormatDateInput(Input):
    """Which moment, and how to write it."""

    value: Annotated[str | int | float, Text("Moment", "ISO 8601, or a number of seconds or milliseconds since 1970.")]
    unit: Annotated[Literal["s", "ms"], Dropdown("A number counts", labels={"s": "Seconds", "ms": "Milliseconds"})] = (
        "ms"
    )
    timezone: Annotated[
        str,
        Text("Time zone", "As Europe/Berlin: the result's, and that of a text which names none.", max_length=64),
    ] = "UTC"
    form: Annotated[
        DateForm,
        Dropdown(
            "Write it as",
            labels={"iso": "2026-03-01T14:05:00+01:00", "date": "2026-03-01", "time": "14:05:00"},
        ),
    ] = "iso"


@action(title="Format a date", summary="Writes a moment in another form and time zone; gives {value}.", effect="pure")
async def format_date(ctx: Context, input: FormatDateInput) -> Json:  # noqa: ARG001 - every action takes a context
    """Write a moment. Raises InputInvalid for what is no date or no time zone."""
    zone = _zone(input.timezone)
    try:
        moment = _moment(input, zone).astimezone(zone)
    except (OverflowError, OSError, ValueError):
        raise InputInvalid(f"{input.value!r} is no moment: write ISO 8601, or a number.", field="value") from None
    return {"value": _written(moment, input.form)}


def _moment(input: FormatDateInput, zone: ZoneInfo) -> datetime:
    if isinstance(input.value, str):
        read = datetime.fromisoformat(input.value.strip())
        return read if read.tzinfo else read.replace(tzinfo=zone)
    seconds = input.value / 1000 if input.unit == "ms" else input.value
    return datetime.fromtimestamp(seconds, UTC)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InputInvalid(f"There is no time zone {name!r}; write it as Europe/Berlin.", field="timezone") from None


def _written(moment: datetime, form: DateForm) -> Json:
    match form:
        case "iso":
            return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds")
        case "date":
            return moment.date().isoformat()
        case "time":
            return moment.time().isoformat(timespec="seconds")
        case "epoch_s":
            return int(moment.timestamp())
        case "epoch_ms":
            return round(moment.timestamp() * 1000)
