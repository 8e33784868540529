"""The pieces this executor can run: a list, by hand, so that one sees what is there.

Decides: which pieces there are. Leaves: what each of them can do to its own package.
"""

from collections.abc import Sequence

from millrace_sdk import Piece

import pieces.data
import pieces.http
import pieces.store
import pieces.webhook

INSTALLED: Sequence[Piece] = (
    pieces.data.piece,
    pieces.http.piece,
    pieces.store.piece,
    pieces.webhook.piece,
)
