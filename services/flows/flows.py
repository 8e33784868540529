"""Flows as a whole: create, read, list, import and export.

Decides: what a new flow holds, how a text becomes its draft and the other way round.
Leaves: edits to drafts.py, going live and deleting to publishing.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal
from uuid import UUID

from chassis.clock import Clock
from chassis.database import Database
from chassis.ids import new_id
from chassis.pages import page_size, page_token, read_page_token
from flowlang.documents import DocumentError, read_json, read_yaml, write_json, write_yaml
from flowlang.ids import has_controls
from flowlang.model import Flow
from services.flows import draft_store, flow_store, version_store
from services.flows.checks import MAX_NAME_CHARS, Checks
from services.flows.draft_store import DraftRow
from services.flows.drafts import Drafts
from services.flows.flow_store import FlowRow, Shown, now
from services.flows.refusals import document_invalid, flow_not_found, id_of, name_invalid, version_not_found

Format = Literal["json", "yaml"]


class Flows:
    """The flows of all projects."""

    def __init__(self, database: Database, checks: Checks, drafts: Drafts, clock: Clock) -> None:
        self._database = database
        self._checks = checks
        self._drafts = drafts
        self._clock = clock

    async def create(self, project_id: str, name: str, document: bytes) -> DraftRow:
        """Create a flow with a draft. Raises Invalid DOCUMENT_INVALID, NAME_INVALID."""
        flow = read_document(document, "json") if document else Flow(name=name)
        return await self._insert(project_id, _named(flow, name or flow.name))

    async def import_document(
        self, project_id: str, flow_id: str, document: bytes, form: Format | None, seen_revision: int
    ) -> DraftRow:
        """Take a text in as the draft of a flow, or, without `flow_id`, as a new flow.

        Raises NotFound FLOW_NOT_FOUND, Invalid DOCUMENT_INVALID, NAME_INVALID, Conflict DRAFT_STALE.
        """
        target = id_of(flow_id, "flow_id") if flow_id else None
        flow = read_document(document, form)
        flow = _named(flow, flow.name)
        if target is None:
            return await self._insert(project_id, flow)
        return await self._drafts.replace(project_id, target, flow, seen_revision)

    async def get(self, project_id: str, flow_id: UUID) -> FlowRow:
        """One flow. Raises NotFound FLOW_NOT_FOUND."""
        row = await flow_store.get(self._database, project_id, flow_id)
        if row is None:
            raise flow_not_found(flow_id)
        return row

    async def page(self, project_id: str, asked: int, token: str, name_contains: str) -> tuple[Sequence[Shown], str]:
        """A page of a project's flows, newest first, and the token of the next. Raises Invalid PAGE_TOKEN_INVALID."""
        limit = page_size(asked)
        before = read_page_token(token, "flows", project_id, name_contains)
        if "\0" in name_contains:  # no name holds it, and PostgreSQL takes no text with it
            return [], ""
        rows = await flow_store.page(self._database, project_id, before, limit + 1, name_contains)
        if len(rows) <= limit:
            return rows, ""
        return rows[:limit], page_token(rows[limit - 1][0], "flows", project_id, name_contains)

    async def export(self, project_id: str, flow_id: UUID, version_id: str, form: Format) -> tuple[bytes, str]:
        """The draft or a version as text, and a file name for it. Raises NotFound FLOW_NOT_FOUND, VERSION_NOT_FOUND."""
        document = (await self._drafts.get(project_id, flow_id)).document
        if version_id:
            wanted = id_of(version_id, "version_id")
            version = await version_store.get(self._database, project_id, flow_id, wanted)
            if version is None:
                raise version_not_found(flow_id, wanted)
            document = version.document
        flow = read_json(document)
        text = write_yaml(flow).encode() if form == "yaml" else write_json(flow, indent=2)
        return text, f"{_slug(flow.name)}.{form}"

    async def _insert(self, project_id: str, flow: Flow) -> DraftRow:
        draft = (await self._checks.check(flow)).draft()
        return await draft_store.insert(self._database, new_id(), project_id, draft, now(self._clock))


def read_document(document: bytes, form: Format | None) -> Flow:
    """Read a document as text. Raises Invalid DOCUMENT_INVALID with line and column."""
    if form is None:
        form = "json" if document.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{" else "yaml"
    try:
        return read_json(document) if form == "json" else read_yaml(document)
    except DocumentError as error:
        raise document_invalid(error) from None


def _named(flow: Flow, name: str) -> Flow:
    name = name.strip()
    if not 1 <= len(name) <= MAX_NAME_CHARS or has_controls(name):
        raise name_invalid(len(name), MAX_NAME_CHARS)
    return Flow(name=name, schema=flow.schema, triggers=flow.triggers, steps=flow.steps, note=flow.note)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60].rstrip("-") or "flow"
