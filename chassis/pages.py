"""Page tokens of keyset lists: where the next page begins, bound to the list it belongs to.

Decides: that a token of one list (another project, another filter) is refused on any other, and that a page costs the
same wherever it lies.
Leaves: the statement to the store; every list is sorted by id, newest first or oldest first, so the last id says it
all.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence
from uuid import UUID

from chassis.errors import Invalid

DEFAULT_SIZE = 50


def page_size(asked: int, default: int = DEFAULT_SIZE) -> int:
    """How many items a page has; 0 asks for the default."""
    return asked or default


def page_token(last: UUID, *bound_to: object) -> str:
    """The token of the page after the item `last`, good for the list that `bound_to` describes and no other."""
    return urlsafe_b64encode(last.bytes + _mark(bound_to)).decode().rstrip("=")


def read_page_token(token: str, *bound_to: object) -> UUID | None:
    """The last item of the page before; None for the first page. Raises Invalid PAGE_TOKEN_INVALID."""
    if not token:
        return None
    try:
        raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except (Base64Error, ValueError):
        raw = b""
    if len(raw) != 24 or raw[16:] != _mark(bound_to):
        raise Invalid(
            "PAGE_TOKEN_INVALID",
            "The page token does not belong to this list. Take `next_page_token` from an answer with the same filters, "
            "or leave it out.",
        )
    return UUID(bytes=raw[:16])


def _mark(bound_to: Sequence[object]) -> bytes:
    return hashlib.blake2b("\0".join(map(str, bound_to)).encode(), digest_size=8).digest()
