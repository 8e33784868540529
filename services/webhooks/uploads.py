"""What is too large or too foreign for the log goes to the files service first.

Decides: how a body becomes a file of the flow's project, and what a flow sees of an uploaded file.
Leaves: storing to files.
"""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from millrace.files.v1 import file_pb2

from services.webhooks.multipart import FilePart

if TYPE_CHECKING:
    from millrace.files.v1.file_pb2_grpc import FileServiceAsyncStub

_CHUNK = 512 * 1024
PACKED_TYPE = "application/vnd.millrace.document"
_UPLOAD_TIMEOUT_S = 30.0


class Uploads:
    """Stores files in the project of a flow."""

    def __init__(self, files: "FileServiceAsyncStub") -> None:
        self._files = files

    async def store(self, project_id: str, name: str, content_type: str, content: bytes) -> file_pb2.File:
        """Store one file, durably. Raises: Unavailable; TooLarge."""
        answer = await self._files.UploadFile(
            _parts(project_id, name, content_type, content), timeout=_UPLOAD_TIMEOUT_S
        )
        return answer.file

    async def store_part(self, project_id: str, part: FilePart) -> dict[str, str | int]:
        """Store a file of a form; return what the flow sees of it: the `FileRef` of the piece SDK."""
        file = await self.store(project_id, part.name, part.content_type, part.content)
        return {"id": file.id, "name": file.name, "content_type": file.content_type, "size_bytes": file.size_bytes}


async def _parts(
    project_id: str, name: str, content_type: str, content: bytes
) -> AsyncIterator[file_pb2.UploadFileRequest]:
    header = file_pb2.FileHeader(project_id=project_id, name=name, content_type=content_type)
    yield file_pb2.UploadFileRequest(header=header)
    for start in range(0, len(content), _CHUNK):
        yield file_pb2.UploadFileRequest(content=content[start : start + _CHUNK])
