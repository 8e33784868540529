"""FlowService: flows as a whole.

Decides: how values become messages. Leaves: everything else to flows.py and publishing.py.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import grpc.aio
from millrace.flows.v1 import flow_pb2 as pb
from millrace.flows.v1.flow_pb2_grpc import FlowServiceServicer

from chassis.identity import require_project
from services.flows.flows import Flows
from services.flows.publishing import Publishing
from services.flows.rpc.messages import document_format, fault_messages, flow_message, flow_page

Context = grpc.aio.ServicerContext[Any, Any]


class FlowRpc(FlowServiceServicer):
    """Creates, lists, imports, exports, switches on and off."""

    def __init__(self, flows: Flows, publishing: Publishing) -> None:
        self._flows, self._publishing = flows, publishing

    async def CreateFlow(self, request: pb.CreateFlowRequest, context: Context) -> pb.CreateFlowResponse:
        draft = await self._flows.create(require_project(), request.name, request.document)
        return pb.CreateFlowResponse(flow=flow_message(draft.flow), faults=fault_messages(draft.faults))

    async def GetFlow(self, request: pb.GetFlowRequest, context: Context) -> pb.GetFlowResponse:
        return pb.GetFlowResponse(flow=flow_message(await self._flows.get(require_project(), UUID(request.flow_id))))

    async def ListFlows(self, request: pb.ListFlowsRequest, context: Context) -> pb.ListFlowsResponse:
        rows, following = await self._flows.page(
            require_project(), request.page_size, request.page_token, request.name_contains
        )
        return flow_page(rows, following)

    async def DeleteFlow(self, request: pb.DeleteFlowRequest, context: Context) -> pb.DeleteFlowResponse:
        await self._publishing.delete(require_project(), UUID(request.flow_id))
        return pb.DeleteFlowResponse()

    async def EnableFlow(self, request: pb.EnableFlowRequest, context: Context) -> pb.EnableFlowResponse:
        return pb.EnableFlowResponse(
            flow=flow_message(await self._publishing.enable(require_project(), UUID(request.flow_id)))
        )

    async def DisableFlow(self, request: pb.DisableFlowRequest, context: Context) -> pb.DisableFlowResponse:
        return pb.DisableFlowResponse(
            flow=flow_message(await self._publishing.disable(require_project(), UUID(request.flow_id)))
        )

    async def ImportFlow(self, request: pb.ImportFlowRequest, context: Context) -> pb.ImportFlowResponse:
        draft = await self._flows.import_document(
            require_project(), request.flow_id, request.document, document_format(request.format), request.seen_revision
        )
        return pb.ImportFlowResponse(flow=flow_message(draft.flow), faults=fault_messages(draft.faults))

    async def ExportFlow(self, request: pb.ExportFlowRequest, context: Context) -> pb.ExportFlowResponse:
        form = document_format(request.format) or "json"
        document, file_name = await self._flows.export(
            require_project(), UUID(request.flow_id), request.version_id, form
        )
        return pb.ExportFlowResponse(document=document, file_name=file_name)
