"""VersionService: publishing, versions, and what consumers ask for.

Decides: how values become messages. Leaves: everything else to publishing.py and versions.py.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import grpc.aio
from millrace.flows.v1 import version_pb2 as pb
from millrace.flows.v1.version_pb2_grpc import VersionServiceServicer

from chassis.identity import current_caller, require_project
from services.flows.live_store import LiveRow
from services.flows.publishing import Publishing
from services.flows.rpc.messages import flow_message, version_message
from services.flows.versions import Versions

Context = grpc.aio.ServicerContext[Any, Any]


class VersionRpc(VersionServiceServicer):
    """Publishes drafts and serves versions."""

    def __init__(self, versions: Versions, publishing: Publishing) -> None:
        self._versions, self._publishing = versions, publishing

    async def PublishDraft(self, request: pb.PublishDraftRequest, context: Context) -> pb.PublishDraftResponse:
        flow, version = await self._publishing.publish(
            require_project(), UUID(request.flow_id), request.seen_revision, current_caller().id
        )
        return pb.PublishDraftResponse(flow=flow_message(flow), version=version_message(version, with_document=False))

    async def ListVersions(self, request: pb.ListVersionsRequest, context: Context) -> pb.ListVersionsResponse:
        rows, following = await self._versions.page(
            require_project(), UUID(request.flow_id), request.page_size, request.page_token
        )
        return pb.ListVersionsResponse(
            versions=[version_message(row, with_document=False) for row in rows], next_page_token=following
        )

    async def GetVersion(self, request: pb.GetVersionRequest, context: Context) -> pb.GetVersionResponse:
        row = await self._versions.get(require_project(), UUID(request.flow_id), UUID(request.version_id))
        return pb.GetVersionResponse(version=version_message(row, with_document=True))

    async def BatchGetVersions(
        self, request: pb.BatchGetVersionsRequest, context: Context
    ) -> pb.BatchGetVersionsResponse:
        rows = await self._versions.several(request.version_ids)
        return pb.BatchGetVersionsResponse(versions=[version_message(row, with_document=True) for row in rows])

    async def ListLiveFlows(self, request: pb.ListLiveFlowsRequest, context: Context) -> pb.ListLiveFlowsResponse:
        live, following = await self._versions.live_page(request.page_size, request.page_token)
        return pb.ListLiveFlowsResponse(flows=[_live(flow) for flow in live], next_page_token=following)

    async def GetLiveFlow(self, request: pb.GetLiveFlowRequest, context: Context) -> pb.GetLiveFlowResponse:
        return pb.GetLiveFlowResponse(flow=_live(await self._versions.live(UUID(request.flow_id))))

    async def ReportApplied(self, request: pb.ReportAppliedRequest, context: Context) -> pb.ReportAppliedResponse:
        await self._publishing.report(UUID(request.flow_id), request.change_number, request.consumer, request.failure)
        return pb.ReportAppliedResponse()

    async def FreezeDraft(self, request: pb.FreezeDraftRequest, context: Context) -> pb.FreezeDraftResponse:
        return pb.FreezeDraftResponse(
            version=version_message(await self._publishing.freeze(UUID(request.flow_id)), with_document=True)
        )


def _live(flow: LiveRow) -> pb.LiveFlow:
    return pb.LiveFlow(
        flow_id=str(flow.flow_id),
        project_id=str(flow.project_id),
        change_number=flow.change_number,
        enabled=flow.enabled,
        version_id=str(flow.version_id or ""),
        document=flow.document,
        deleted=flow.deleted,
    )
