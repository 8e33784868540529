"""Flows as a whole: create, read, list, delete, import and export.

Decides: what a new flow holds, how a document becomes its draft. Leaves: edits to drafts.py, going live to publishing.py.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

from chassis.clock import Clock
from chassis.database import Database
from chassis.errors import Conflict, Invalid, NotFound
from chassis.ids import new_id
from chassis.pages import page_size, page_token, read_page_token
from flowlang.documents import DocumentError, read_json, read_yaml, write_json, write_yaml
from flowlang.model import Flow
from services.flows import flow_store, version_store
from services.flows.checks import Checked, Checks
from services.flows.flow_store import DraftRow, FlowRow

Format = Literal["json", "yaml"]
MAX_NAME = 200


class Flows:
    """The flows of all projects."""

    def __init__(self, database: Database, checks: Checks, clock: Clock) -> None:
        self._database = database
        self._checks = checks
        self._clock = clock

    async def create(self, project_id: str, name: str, document: bytes) -> DraftRow:
        """Create a flow with a draft. Raises Invalid DOCUMENT_INVALID, NAME_INVALID."""
        flow = read_document(document, "json") if document else Flow(name=name)
        return await self._insert(project_id, _named(flow, name or flow.name))

    async def import_document(self, project_id: str, flow_id: str, document: bytes, form: Format | None, seen_revision: int) -> DraftRow:
        """Take a document in as the draft of a flow, or, without `flow_id`, as a new flow.

        Raises NotFound, Invalid DOCUMENT_INVALID, Conflict DRAFT_STALE.
        """
        flow = read_document(document, form)
        flow = _named(flow, flow.name)
        if not flow_id:
            return await self._insert(project_id, flow)
        target = uuid_of(flow_id, "flow_id")
        checked = await self._checks.check(flow)
        async with self._database.transaction() as connection:
            row = await flow_store.lock_draft(connection, project_id, target)
            if row is None:
                raise flow_not_found(target)
            refuse_stale(row.flow, seen_revision)
            await flow_store.write_draft(
                connection, target, flow.name, write_json(flow), checked.as_json(), checked.valid, now(self._clock)
            )
        return await self.draft(project_id, target)

    async def get(self, project_id: str, flow_id: UUID) -> FlowRow:
        """One flow. Raises NotFound."""
        row = await flow_store.get(self._database, project_id, flow_id)
        if row is None:
            raise flow_not_found(flow_id)
        return row

    async def draft(self, project_id: str, flow_id: UUID) -> DraftRow:
        """One flow with its draft. Raises NotFound."""
        row = await flow_store.get_draft(self._database, project_id, flow_id)
        if row is None:
            raise flow_not_found(flow_id)
        return row

    async def page(self, project_id: str, asked: int, token: str, name_contains: str) -> tuple[list[FlowRow], str]:
        """A page of a project's flows, newest first, and the token of the next. Raises Invalid PAGE_TOKEN_INVALID."""
        limit = page_size(asked)
        before = read_page_token(token, "flows", project_id, name_contains)
        rows = await flow_store.page(self._database, project_id, before, limit + 1, name_contains)
        following = page_token(rows[limit - 1].id, "flows", project_id, name_contains) if len(rows) > limit else ""
        return rows[:limit], following

    async def export(self, project_id: str, flow_id: UUID, version_id: str, form: Format) -> tuple[bytes, str]:
        """The draft or a version as text, and a file name for it. Raises NotFound."""
        if version_id:
            version = await version_store.get(self._database, project_id, flow_id, uuid_of(version_id, "version_id"))
            if version is None:
                raise NotFound("VERSION_NOT_FOUND", f"Flow {flow_id} has no version {version_id}.")
            document = version.document
        else:
            document = (await self.draft(project_id, flow_id)).document
        flow = read_json(document)
        text = write_yaml(flow).encode() if form == "yaml" else write_json(flow, indent=2)
        return text, f"{_slug(flow.name)}.{form}"

    async def _insert(self, project_id: str, flow: Flow) -> DraftRow:
        checked: Checked = await self._checks.check(flow)
        flow_id = new_id()
        await flow_store.insert(
            self._database, flow_id, project_id, flow.name, write_json(flow), checked.as_json(), checked.valid, now(self._clock)
        )
        return await self.draft(project_id, flow_id)


def now(clock: Clock) -> datetime:
    """The time as it is stored."""
    return datetime.fromtimestamp(clock.now_ms() / 1000, UTC)


def flow_not_found(flow_id: UUID | str) -> NotFound:
    """The error for a flow that is not in the caller's project."""
    return NotFound("FLOW_NOT_FOUND", f"There is no flow {flow_id} in this project.")


def refuse_stale(flow: FlowRow, seen_revision: int) -> None:
    """Raise Conflict DRAFT_STALE when the draft moved on since the caller saw it; 0 accepts whatever is there."""
    if seen_revision not in (0, flow.draft_revision):
        raise Conflict(
            "DRAFT_STALE",
            f"Flow {flow.id} is at revision {flow.draft_revision}, this was made on {seen_revision}. Read the draft again and repeat the change.",
            current_revision=flow.draft_revision,
        )


def uuid_of(text: str, field: str) -> UUID:
    """An id from a field that may also be empty. Raises Invalid."""
    try:
        return UUID(text)
    except ValueError:
        raise Invalid("REQUEST_INVALID", f"`{field}` must be an id (a UUID), not {text!r}.") from None


def read_document(document: bytes, form: Format | None) -> Flow:
    """Read a document as text. Raises Invalid DOCUMENT_INVALID with line and column."""
    if form is None:
        form = "json" if document.lstrip()[:1] == b"{" else "yaml"
    try:
        return read_json(document) if form == "json" else read_yaml(document)
    except DocumentError as error:
        where = f" (line {error.line}, column {error.column})" if error.line else ""
        raise Invalid("DOCUMENT_INVALID", f"{error.message}{where}", line=error.line, column=error.column) from None


def _named(flow: Flow, name: str) -> Flow:
    name = name.strip()
    if not 1 <= len(name) <= MAX_NAME:
        raise Invalid("NAME_INVALID", f"A flow's name has 1 to {MAX_NAME} characters, this one has {len(name)}.")
    return Flow(name=name, schema=flow.schema, triggers=flow.triggers, steps=flow.steps, note=flow.note)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "flow"
