"""The pieces that a flow may use, as far as the flow language needs to know them.

Decides: the shape in which a catalogue is read: name, version, triggers and actions, each with its input's JSON Schema.
Leaves: what the pieces do to the executor, how inputs are checked to schemas.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from flowlang.model import Json


class TriggerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An event that a piece can start a flow with."""

    name: str
    title: str = ""
    summary: str = ""
    input_schema: dict[str, Json] = {}


class ActionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An action of a piece: its input, what it does outside, what happens when it is cut off."""

    name: str
    title: str = ""
    summary: str = ""
    input_schema: dict[str, Json] = {}
    effect: Literal["pure", "read", "effect", "store"] = "effect"
    on_interruption: Literal["retry", "fail"] = "retry"


class PieceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One installed piece in one version; triggers and actions by name."""

    name: str
    version: str
    title: str = ""
    summary: str = ""
    triggers: dict[str, TriggerInfo] = {}
    actions: dict[str, ActionInfo] = {}


class _Described(msgspec.Struct, kw_only=True):
    """The wire form of a piece: lists where PieceInfo has dictionaries."""

    name: str
    version: str
    title: str = ""
    summary: str = ""
    triggers: list[TriggerInfo] = []
    actions: list[ActionInfo] = []


_decoder = msgspec.json.Decoder(_Described)


def read_catalogue(pieces: Iterable[bytes]) -> dict[str, PieceInfo]:
    """The pieces by name, from one JSON object each. Raises msgspec.ValidationError for an object of another shape."""
    catalogue = {}
    for data in pieces:
        piece = _decoder.decode(data)
        catalogue[piece.name] = PieceInfo(
            name=piece.name,
            version=piece.version,
            title=piece.title,
            summary=piece.summary,
            triggers={trigger.name: trigger for trigger in piece.triggers},
            actions={action.name: action for action in piece.actions},
        )
    return catalogue
