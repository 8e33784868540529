"""What a flow answered, as HTTP: the one place that turns its JSON document into a body.

Decides: JSON unless the flow names another content type; with another one, a text goes out as it is, not as a JSON
string.
Leaves: which headers a flow may set to webhooks, which sends them.
"""

from __future__ import annotations

import msgspec

from services.executor.engine.commands import Answer


def http_answer(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    """Status, headers with lower-case names, and body."""
    headers = {name.lower(): value for name, value in answer.headers.items()}
    content_type = headers.setdefault("content-type", "application/json")
    body = answer.body
    if body[:1] == b'"' and "json" not in content_type.lower():
        body = msgspec.json.decode(body, type=str).encode("utf-8", "surrogatepass")
    return answer.status, headers, body
