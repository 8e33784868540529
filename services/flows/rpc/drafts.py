"""DraftService: drafts and their edits.

Decides: how values become messages. Leaves: everything else to drafts.py.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import grpc.aio
from millrace.flows.v1 import draft_pb2 as pb
from millrace.flows.v1.draft_pb2_grpc import DraftServiceServicer

from chassis.identity import require_project
from services.flows.drafts import Drafts
from services.flows.rpc.messages import draft_message, sample_message

Context = grpc.aio.ServicerContext[Any, Any]


class DraftRpc(DraftServiceServicer):
    """Reads and edits drafts."""

    def __init__(self, drafts: Drafts) -> None:
        self._drafts = drafts

    async def GetDraft(self, request: pb.GetDraftRequest, context: Context) -> pb.GetDraftResponse:
        draft, samples = await self._drafts.read(require_project(), UUID(request.flow_id))
        return pb.GetDraftResponse(draft=draft_message(draft), samples=[sample_message(sample) for sample in samples])

    async def EditDraft(self, request: pb.EditDraftRequest, context: Context) -> pb.EditDraftResponse:
        draft = await self._drafts.edit(
            require_project(), UUID(request.flow_id), request.operations, request.seen_revision, request.edit_id
        )
        return pb.EditDraftResponse(draft=draft_message(draft))

    async def SaveSample(self, request: pb.SaveSampleRequest, context: Context) -> pb.SaveSampleResponse:
        await self._drafts.save_sample(request.project_id, UUID(request.flow_id), request.trigger_id, request.output)
        return pb.SaveSampleResponse()
