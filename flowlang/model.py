"""The flow document as typed values: what JSON and YAML are read into, and written from.

Decides: the fields of a document, their defaults, and how step kinds are told apart (`kind`).
Leaves: reading and writing text to documents.py, what makes a document valid to validate.py.
Values are frozen; an edit makes a new document and shares what did not change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

SCHEMA = 1
"""Number of the document form written by this release; every earlier one can be read."""

if TYPE_CHECKING:
    # msgspec cannot build a recursive alias and decodes the same values as Any.
    Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
else:
    Json = Any
"""A JSON value. Inside `input` any text may hold `{{ expression }}` parts."""

Effect = Literal["pure", "read", "effect"]
"""What a step does to the world outside; decides where barriers stand (execution.md, The heart)."""

Language = Literal["javascript", "typescript"]


class Node(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Base of every part of a document: frozen, unknown fields refused, defaults not written."""


class Trigger(Node, frozen=True):
    """What starts the flow; several triggers start the same steps."""

    id: str
    piece: str
    event: str
    version: str = ""
    input: dict[str, Json] = {}
    note: str = ""


class Retry(Node, frozen=True):
    """How often and when a failed step is tried again. Durations are texts: `500ms`, `1s`, `2m`, `1h`."""

    max_attempts: int = 1
    initial_interval: str = "1s"
    backoff: float = 2.0
    max_interval: str = "60s"
    jitter: float = 0.1


class Condition(Node, frozen=True):
    """One comparison: `left op right`, or one free `expression` alone."""

    left: Json = None
    op: str = ""
    right: Json = None
    case_sensitive: bool = True
    expression: str = ""


class Branch(Node, frozen=True):
    """One way out of a router. `when`: any of (outer list) all of (inner list). A fallback has no `when`."""

    name: str
    when: list[list[Condition]] = []
    fallback: bool = False
    steps: list[Step] = []


class ActionStep(Node, frozen=True, tag_field="kind", tag="action"):
    """Calls an action of a piece."""

    id: str
    piece: str
    action: str
    version: str = ""
    input: dict[str, Json] = {}
    effect: Effect | None = None
    retry: Retry | None = None
    timeout: str = ""
    on_error: Literal["fail", "continue"] = "fail"
    on_interruption: Literal["retry", "fail"] | None = None
    skip: bool = False
    note: str = ""


class CodeStep(Node, frozen=True, tag_field="kind", tag="code"):
    """Runs the author's function `code` in the jail; its argument is `input`."""

    id: str
    source: str
    language: Language = "typescript"
    input: dict[str, Json] = {}
    retry: Retry | None = None
    timeout: str = ""
    on_error: Literal["fail", "continue"] = "fail"
    skip: bool = False
    note: str = ""


class RouterStep(Node, frozen=True, tag_field="kind", tag="router"):
    """Runs the first matching branch or all matching ones, in order; the fallback only when none matches."""

    id: str
    branches: list[Branch]
    mode: Literal["first_match", "all_matches"] = "first_match"
    skip: bool = False
    note: str = ""


class LoopStep(Node, frozen=True, tag_field="kind", tag="loop"):
    """Runs its steps once an item. `items` is one expression that gives a list.

    `collect` is evaluated at the end of each iteration.
    """

    id: str
    items: Json
    steps: list[Step] = []
    concurrency: int = 1
    collect: Json = None
    on_error: Literal["fail", "continue"] = "fail"
    on_failure: Literal["stop", "finish"] = "stop"
    skip: bool = False
    note: str = ""


class RespondStep(Node, frozen=True, tag_field="kind", tag="respond"):
    """Answers a waiting synchronous webhook and goes on. A second answer is ignored and noted."""

    id: str
    status: Json = 200
    headers: dict[str, Json] = {}
    body: Json = None
    skip: bool = False
    note: str = ""


Step = ActionStep | CodeStep | RouterStep | LoopStep | RespondStep


class Flow(Node, frozen=True):
    """A whole flow document."""

    name: str
    schema: int = SCHEMA
    triggers: list[Trigger] = []
    steps: list[Step] = []
    note: str = ""
