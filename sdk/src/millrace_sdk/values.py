"""The plain values that cross between a piece and the platform.

Decides: what a JSON value is here, and how a stored file is pointed at.
Leaves: how values become fields of a form to fields.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    # msgspec cannot build a recursive alias and decodes the same values as Any.
    Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
else:
    Json = Any
"""A JSON value: what goes into an action and what comes out of it."""

Effect = Literal["pure", "read", "effect", "store"]
"""What an action does to the world outside.

`pure` computes, `read` looks something up, `effect` changes something (its start is made durable before it begins),
`store` changes the platform's own key-value store in the journal's transaction. In doubt it is `effect`.
"""

OnInterruption = Literal["retry", "fail"]
"""What happens to an effect that was cut off in flight: the same call with the same key again, or the step fails."""


class FileRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Points at a file kept by the file service; the content itself never travels through a flow."""

    id: str
    name: str
    content_type: str = "application/octet-stream"
    size_bytes: int = 0
