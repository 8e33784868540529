"""What an author of a Millrace piece imports: all of it from here.

Decides: the public surface; `tests/sdk/surface.txt` holds it, so that no change to it goes unseen.
Leaves: running pieces to the executor. The guide with an example that runs is `sdk/README.md`.
"""

from .context import DEFAULT_TIMEOUT, Context, Http, Response
from .describe import describe
from .errors import (
    KINDS,
    ActionFailed,
    ConnectFailed,
    ConnectionLost,
    EgressBlocked,
    InputInvalid,
    ResponseTooLarge,
    TimedOut,
)
from .fields import (
    Checkbox,
    Date,
    Dropdown,
    File,
    Input,
    JsonValue,
    ListOf,
    LongText,
    Number,
    ObjectOf,
    Secret,
    Text,
)
from .piece import Action, AnyAction, DeclarationError, Piece, StoreAction, Trigger, action, store_action, trigger
from .store import StoreOperation, apply_store_operation
from .values import Effect, FileRef, Json, OnInterruption

__all__ = [
    "DEFAULT_TIMEOUT",
    "KINDS",
    "Action",
    "ActionFailed",
    "AnyAction",
    "Checkbox",
    "ConnectFailed",
    "ConnectionLost",
    "Context",
    "Date",
    "DeclarationError",
    "Dropdown",
    "Effect",
    "EgressBlocked",
    "File",
    "FileRef",
    "Http",
    "Input",
    "InputInvalid",
    "Json",
    "JsonValue",
    "ListOf",
    "LongText",
    "Number",
    "ObjectOf",
    "OnInterruption",
    "Piece",
    "Response",
    "ResponseTooLarge",
    "Secret",
    "StoreAction",
    "StoreOperation",
    "Text",
    "TimedOut",
    "Trigger",
    "action",
    "apply_store_operation",
    "describe",
    "store_action",
    "trigger",
]
