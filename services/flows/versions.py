"""Reads versions: for people within their project, for consumers and executors across all.

Decides: who sees which version, how pages of live flows are bounded. Leaves: making versions to publishing.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from chassis.database import Database
from chassis.pages import page_size, page_token, read_page_token
from services.flows import flow_store, live_store, version_store
from services.flows.live_store import LiveRow
from services.flows.refusals import flow_not_found, id_of, version_not_found
from services.flows.version_store import VersionRow

LIVE_PAGE = 200
LIVE_PAGE_BYTES = 8 * 1024 * 1024
"""Documents of one page of live flows together; a message may have 16 MiB."""


class Versions:
    """The versions of all flows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, project_id: str, flow_id: UUID, asked: int, token: str) -> tuple[list[VersionRow], str]:
        """A page of a flow's versions, newest first. Raises NotFound FLOW_NOT_FOUND, Invalid PAGE_TOKEN_INVALID."""
        limit = page_size(asked)
        last = read_page_token(token, "versions", project_id, flow_id)
        if await flow_store.get(self._database, project_id, flow_id) is None:
            raise flow_not_found(flow_id)
        before = last.int if last else version_store.NEWEST
        rows = await version_store.page(self._database, project_id, flow_id, before, limit + 1)
        if len(rows) <= limit:
            return rows, ""
        return rows[:limit], page_token(UUID(int=rows[limit - 1].number), "versions", project_id, flow_id)

    async def get(self, project_id: str, flow_id: UUID, version_id: UUID) -> VersionRow:
        """One version. Raises NotFound VERSION_NOT_FOUND."""
        row = await version_store.get(self._database, project_id, flow_id, version_id)
        if row is None:
            raise version_not_found(flow_id, version_id)
        return row

    async def several(self, version_ids: Iterable[str]) -> list[VersionRow]:
        """Versions by id, whatever their project; unknown ones are left out."""
        return await version_store.several(
            self._database, [id_of(version_id, "version_ids") for version_id in version_ids]
        )

    async def live(self, flow_id: UUID) -> LiveRow:
        """One flow for its consumers, live or not, also when deleted. Raises NotFound FLOW_NOT_FOUND."""
        row = await live_store.get(self._database, flow_id)
        if row is None:
            raise flow_not_found(flow_id)
        return row

    async def live_page(self, asked: int, token: str) -> tuple[list[LiveRow], str]:
        """A page of the flows that are live or on their way to be, by id. Raises Invalid PAGE_TOKEN_INVALID."""
        limit = page_size(asked, LIVE_PAGE)
        after = read_page_token(token, "live") or UUID(int=0)
        rows, more = await live_store.page(self._database, after, limit, LIVE_PAGE_BYTES)
        return rows, page_token(rows[-1].flow_id, "live") if more else ""
