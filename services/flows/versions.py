"""Reads versions: for people within their project, for consumers and executors across all."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

import msgspec

from chassis.database import Database
from chassis.errors import NotFound
from chassis.pages import page_size, page_token, read_page_token
from services.flows import flow_store, version_store
from services.flows.flow_store import NEWEST, DraftRow
from services.flows.flows import flow_not_found, uuid_of
from services.flows.publishing import DISABLED
from services.flows.version_store import VersionRow

LIVE_PAGE = 200


class LiveFlow(msgspec.Struct, frozen=True):
    """A flow as its consumers see it; `version_id` is the one that is or is to become live."""

    flow_id: UUID
    project_id: UUID
    change_number: int
    enabled: bool
    version_id: UUID | None
    document: bytes
    deleted: bool


class Versions:
    """The versions of all flows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, project_id: str, flow_id: UUID, asked: int, token: str) -> tuple[list[VersionRow], str]:
        """A page of a flow's versions, newest first. Raises NotFound, Invalid PAGE_TOKEN_INVALID."""
        if await flow_store.get(self._database, project_id, flow_id) is None:
            raise flow_not_found(flow_id)
        limit = page_size(asked)
        before = read_page_token(token, "versions", flow_id) or NEWEST
        rows = await version_store.page(self._database, project_id, flow_id, before, limit + 1)
        following = page_token(rows[limit - 1].id, "versions", flow_id) if len(rows) > limit else ""
        return rows[:limit], following

    async def get(self, project_id: str, flow_id: UUID, version_id: UUID) -> VersionRow:
        """One version. Raises NotFound."""
        row = await version_store.get(self._database, project_id, flow_id, version_id)
        if row is None:
            raise NotFound("VERSION_NOT_FOUND", f"Flow {flow_id} has no version {version_id} in this project.")
        return row

    async def several(self, version_ids: Iterable[str]) -> list[VersionRow]:
        """Versions by id, whatever their project; unknown ones are left out."""
        return await version_store.several(self._database, [uuid_of(version_id, "version_ids") for version_id in version_ids])

    async def live(self, flow_id: UUID) -> LiveFlow:
        """One flow for its consumers. Raises NotFound."""
        row = await flow_store.get_any(self._database, flow_id)
        if row is None:
            raise flow_not_found(flow_id)
        return await self._live(row)

    async def live_page(self, asked: int, token: str) -> tuple[list[LiveFlow], str]:
        """A page of the flows that are live or on their way to be, by id."""
        limit = page_size(asked, LIVE_PAGE)
        ids = await flow_store.live_ids(self._database, read_page_token(token, "live"), limit + 1)
        rows = [await flow_store.get_any(self._database, flow_id) for flow_id in ids[:limit]]
        live = [await self._live(row) for row in rows if row is not None]
        return live, page_token(ids[limit - 1], "live") if len(ids) > limit else ""

    async def _live(self, row: DraftRow) -> LiveFlow:
        flow = row.flow
        version_id = flow.next_version_id or flow.live_version_id
        enabled = flow.state != DISABLED and version_id is not None and not row.deleted
        versions = await version_store.several(self._database, [version_id]) if version_id is not None else []
        document = versions[0].document if versions else b""
        return LiveFlow(flow.id, flow.project_id, flow.change_number, enabled, version_id, document, row.deleted)
