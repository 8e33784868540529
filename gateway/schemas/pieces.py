"""The catalogue of pieces, as REST shows it. The service describes each piece as JSON; it passes through unopened.

Decides: names of fields and the example. Leaves: what a piece says of itself to the SDK.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from pydantic import ConfigDict, Field

from gateway.schemas.common import Json, Model, example

_PIECE: dict[str, Any] = {
    "name": "http",
    "version": "1.0.0",
    "title": "HTTP",
    "summary": "Calls any HTTP API.",
    "triggers": [],
    "actions": [],
}


class Piece(Model):
    """An installed piece with its triggers and actions; each has the JSON Schema of its input and its effect class."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"example": _PIECE})
    name: str = Field(description="What documents call it.")
    version: str = Field(description="Which version is installed.")
    title: str = Field(description="What people call it.")
    summary: str = Field(description="What it is for.")
    triggers: list[Any] = Field(description="What it can start flows with.")
    actions: list[Any] = Field(description="What it can do in a step.")


class PieceList(Model):
    """Every installed piece, by name."""

    model_config = example({"pieces": [_PIECE]})
    pieces: list[Piece]


def pieces_view(pieces: Sequence[bytes]) -> dict[str, Json]:
    """A `PieceList`."""
    return {"pieces": [msgspec.Raw(piece) for piece in pieces]}
