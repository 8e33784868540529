"""What the catalogue says about a piece.

Decides: the form of a catalogue entry, read by the builder, the validator and the webhooks service.
Leaves: collecting the installed pieces to the executor.
"""

from __future__ import annotations

from .piece import AnyAction, Piece, Trigger
from .schema import input_schema
from .values import Json


def describe(piece: Piece) -> dict[str, Json]:
    """The catalogue entry of a piece; each trigger and action carries the JSON Schema of its input."""
    return {
        "name": piece.name,
        "version": piece.version,
        "title": piece.title,
        "summary": piece.summary,
        "triggers": [_trigger(trigger) for trigger in piece.triggers],
        "actions": [_action(action) for action in piece.actions],
    }


def _trigger(trigger: Trigger) -> Json:
    return {
        "name": trigger.name,
        "title": trigger.title,
        "summary": trigger.summary,
        "input_schema": input_schema(trigger.input_type),
    }


def _action(action: AnyAction) -> Json:
    return {
        "name": action.name,
        "title": action.title,
        "summary": action.summary,
        "input_schema": input_schema(action.input_type),
        "effect": action.effect,
        "on_interruption": action.on_interruption,
    }
