"""The servicer of files: messages in, domain calls, messages out. Streams check what they carry themselves.

Decides: what a stream must bring, part by part. Leaves: storing to files.py.
"""

from collections.abc import AsyncIterator
from uuid import UUID

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp
from millrace.files.v1 import file_pb2 as pb
from millrace.files.v1.file_pb2_grpc import FileServiceServicer

from chassis.errors import Invalid
from chassis.identity import require_project
from chassis.rules import rules_of
from services.files.file_store import File
from services.files.files import Files

UploadContext = grpc.aio.ServicerContext[pb.UploadFileRequest, pb.UploadFileResponse]
DownloadContext = grpc.aio.ServicerContext[pb.DownloadFileRequest, pb.DownloadFileResponse]
GetContext = grpc.aio.ServicerContext[pb.GetFileRequest, pb.GetFileResponse]


MAX_PART_BYTES = 1024 * 1024
_header_rules = rules_of(pb.FileHeader.DESCRIPTOR)


class FileRpc(FileServiceServicer):
    """Serves `FileService`."""

    def __init__(self, files: Files) -> None:
        self._files = files

    async def UploadFile(
        self, request_iterator: AsyncIterator[pb.UploadFileRequest], context: UploadContext
    ) -> pb.UploadFileResponse:
        header = await _header(request_iterator)
        file = await self._files.upload(
            UUID(header.project_id), header.name, header.content_type, _contents(request_iterator)
        )
        return pb.UploadFileResponse(file=_to_pb(file))

    async def DownloadFile(
        self, request: pb.DownloadFileRequest, context: DownloadContext
    ) -> AsyncIterator[pb.DownloadFileResponse]:
        async for part in self._files.content(UUID(request.project_id), UUID(request.file_id)):
            yield pb.DownloadFileResponse(content=part)

    async def GetFile(self, request: pb.GetFileRequest, context: GetContext) -> pb.GetFileResponse:
        return pb.GetFileResponse(file=_to_pb(await self._files.get(UUID(require_project()), UUID(request.file_id))))


async def _header(requests: AsyncIterator[pb.UploadFileRequest]) -> pb.FileHeader:
    async for request in requests:
        if request.WhichOneof("part") == "header":
            if _header_rules is not None:
                _header_rules.enforce(request.header)
            return request.header
        break
    raise Invalid("FILE_HEADER_MISSING", "An upload begins with a header. Send it before the content.")


async def _contents(requests: AsyncIterator[pb.UploadFileRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if request.WhichOneof("part") == "header":
            raise Invalid("FILE_HEADER_REPEATED", "An upload has one header; this one has a second.")
        if len(request.content) > MAX_PART_BYTES:
            raise Invalid("FILE_PART_TOO_LARGE", f"A part of an upload may have {MAX_PART_BYTES} bytes at most.")
        yield request.content


def _to_pb(file: File) -> pb.File:
    created_at = Timestamp()
    created_at.FromDatetime(file.created_at)
    return pb.File(
        id=str(file.id),
        project_id=str(file.project_id),
        name=file.name,
        content_type=file.content_type,
        size_bytes=file.size_bytes,
        sha256=file.sha256.hex(),
        created_at=created_at,
    )
