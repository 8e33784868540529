"""From an HTTP request to a trigger's output: which endpoint, may it, what does it say.

Decides: the order of the checks (endpoint, method, proof, encoding, type, body), each with its error; what is read at
once and what takes a thread or the files service.
Leaves: proofs to verify.py, bodies to bodies.py and multipart.py, the form of the output to payload.py.
Holds: nothing is parsed before the proof.
"""

import asyncio
from collections.abc import Mapping

import msgspec
from millrace.webhooks.v1 import ingest_pb2 as pb

from chassis.errors import Conflict, NotFound, Unavailable
from services.webhooks.bodies import body_json, kind_of, media_type
from services.webhooks.endpoints import Endpoint, FlowEndpoints
from services.webhooks.multipart import read_multipart
from services.webhooks.payload import assemble, text_at
from services.webhooks.refusals import Gone, MethodNotAllowed, UnsupportedBody
from services.webhooks.settings import WebhooksSettings
from services.webhooks.uploads import Uploads

LARGE_BODY_BYTES = 256 * 1024
"""A body over this is checked and compressed in a thread, so that its neighbours do not wait for it."""
_NOT_READY_RETRY_S = 60.0


def choose(flow: FlowEndpoints, trigger_id: str) -> Endpoint:
    """The endpoint that was called. Raises: NotFound, Gone, Conflict, Unavailable, each telling what to do."""
    if flow.state == "live" and len(flow.endpoints) == 1 and not trigger_id:
        (endpoint,) = flow.endpoints.values()
    else:
        endpoint = _choose_slowly(flow, trigger_id)
    if endpoint.proof is None:
        raise _not_ready(endpoint.failure)
    return endpoint


def _choose_slowly(flow: FlowEndpoints, trigger_id: str) -> Endpoint:
    if flow.state == "missing":
        raise NotFound("ENDPOINT_NOT_FOUND", "There is no webhook at this address. Compare it with the flow's trigger.")
    if flow.state == "deleted":
        raise Gone("FLOW_DELETED", "The flow behind this webhook was deleted. Stop sending to this address.")
    if flow.state == "disabled":
        raise Conflict(
            "FLOW_DISABLED", "The flow behind this webhook is switched off. Enable it.", code="flow_disabled"
        )
    if flow.failure and not flow.endpoints:
        raise _not_ready(flow.failure)
    endpoint = flow.endpoints.get(trigger_id)
    if endpoint is not None:
        return endpoint
    choices = ", ".join(sorted(flow.endpoints))
    if not choices:
        raise NotFound("ENDPOINT_NOT_FOUND", "The flow at this address has no webhook trigger. Add one and publish.")
    if trigger_id:
        raise NotFound("ENDPOINT_NOT_FOUND", f"The flow has no webhook trigger of that id. It has: {choices}.")
    raise Conflict(
        "TRIGGER_AMBIGUOUS",
        f"The flow has several webhook triggers. Call one of them as …/triggers/<id>, with the id one of: {choices}.",
    )


def check_method(endpoint: Endpoint, method: str) -> None:
    """Raises: MethodNotAllowed when the trigger does not take the method."""
    allowed = endpoint.trigger.methods
    if method not in allowed:
        names = ", ".join(sorted(allowed))
        raise MethodNotAllowed("METHOD_NOT_ALLOWED", f"This webhook takes {names}, not {method}.", allow=names)


def body_kind(endpoint: Endpoint, headers: Mapping[str, str]) -> str:
    """How to read the body. Raises: UnsupportedBody when the endpoint does not take its type or encoding."""
    content_type = headers.get("content-type", "")
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding not in ("identity", ""):
        raise UnsupportedBody(
            "ENCODING_UNSUPPORTED", "Compressed bodies are not taken. Send the body without content-encoding."
        )
    accepted = endpoint.trigger.content_types
    if accepted and media_type(content_type) not in accepted:
        names = ", ".join(sorted(accepted))
        raise UnsupportedBody("CONTENT_TYPE_UNSUPPORTED", f"This webhook takes bodies of type {names}.")
    return kind_of(content_type, endpoint.trigger.settings.body_as)


def duplicate_key(endpoint: Endpoint, headers: Mapping[str, str], output: bytes) -> str:
    """The sender's own id of the event, where the endpoint looks for one; empty: none."""
    trigger = endpoint.trigger
    found = headers.get(trigger.idempotency_header, "") if trigger.idempotency_header else ""
    if not found and trigger.idempotency_path:
        found = text_at(output, trigger.idempotency_path)
    return found


class Reader:
    """Reads bodies within limits."""

    def __init__(self, settings: WebhooksSettings, uploads: Uploads) -> None:
        self._settings = settings
        self._uploads = uploads

    @staticmethod
    def takes_time(kind: str, body: bytes) -> bool:
        """Whether the body must be read by `output_slowly`."""
        return kind == "multipart" or len(body) > LARGE_BODY_BYTES

    def output(self, hook: pb.InboundWebhook, endpoint: Endpoint, headers: Mapping[str, str], kind: str) -> bytes:
        """The trigger's output as JSON. Raises: Invalid, UnsupportedBody."""
        limits = self._settings
        content_type = headers.get("content-type", "")
        body = body_json(hook.body, kind, content_type, limits.webhook_json_depth, limits.webhook_form_fields)
        return assemble(
            hook.method, headers, endpoint.trigger.masked_headers, hook.query, body, limits.webhook_form_fields
        )

    async def output_slowly(
        self, hook: pb.InboundWebhook, project_id: str, endpoint: Endpoint, headers: Mapping[str, str], kind: str
    ) -> bytes:
        """Like `output`, for what takes time: large bodies, forms with files. Raises: also Unavailable."""
        if kind != "multipart":
            return await asyncio.to_thread(self.output, hook, endpoint, headers, kind)
        limits = self._settings
        form = await asyncio.to_thread(
            read_multipart,
            hook.body,
            headers.get("content-type", ""),
            limits.webhook_form_fields,
            limits.webhook_form_files,
        )
        fields: dict[str, object] = {**form.fields}
        files = []
        for part in form.files:
            stored = await self._uploads.store_part(project_id, part)
            files.append(stored)
            present = fields.get(part.field)
            if present is None:
                fields[part.field] = stored
            else:
                fields[part.field] = [*present, stored] if isinstance(present, list) else [present, stored]
        return assemble(
            hook.method,
            headers,
            endpoint.trigger.masked_headers,
            hook.query,
            msgspec.json.encode(fields),
            limits.webhook_form_fields,
            msgspec.json.encode(files),
        )


def _not_ready(why: str) -> Unavailable:
    return Unavailable(
        "ENDPOINT_NOT_READY",
        f"This webhook cannot take events until its settings are mended. {why}",
        retry_after_s=_NOT_READY_RETRY_S,
    )
