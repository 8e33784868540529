"""Reads payloads that were too large for a record of the log.

Decides: that a payload is read whole. Leaves: what a missing one means to intake.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from millrace.files.v1 import file_pb2 as pb

if TYPE_CHECKING:  # the generated module has this class for type checkers alone
    from millrace.files.v1.file_pb2_grpc import FileServiceAsyncStub


class FilesPayloads:
    """Payloads kept by the files service; see intake.PayloadFiles."""

    def __init__(self, stub: FileServiceAsyncStub) -> None:
        self._stub = stub

    async def read(self, project_id: str, file_id: str) -> bytes:
        """The packed document. Raises NotFound, Unavailable."""
        parts = self._stub.DownloadFile(pb.DownloadFileRequest(project_id=project_id, file_id=file_id))
        return b"".join([part.content async for part in parts])
