"""Files: stored whole or not at all, found in their own project alone."""

import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from millrace.files.v1 import file_pb2 as pb
from millrace.files.v1.file_pb2_grpc import FileServiceStub
from millrace.options.v1 import options_pb2

from chassis.database import Database
from chassis.errors import Denied, Invalid, NotFound
from chassis.identity import Caller, service_caller
from chassis.ids import new_text_id
from chassis.lifecycle import Process, Service, serving
from services.files.service import build
from services.files.settings import FilesSettings

pytestmark = pytest.mark.asyncio(loop_scope="module")
LIMIT = 3 * 1024 * 1024


@dataclass
class Running:
    process: Process
    database: Database
    home: Path

    def stub(self, caller: Caller) -> Any:
        return FileServiceStub(self.process.channel("files", caller))

    async def upload(self, project_id: str, *parts: bytes, name: str = "a.txt", content_type: str = "") -> pb.File:
        header = pb.FileHeader(project_id=project_id, name=name, content_type=content_type)
        return (await self.send(pb.UploadFileRequest(header=header), *contents(*parts))).file

    async def send(self, *requests: pb.UploadFileRequest) -> pb.UploadFileResponse:
        async def stream() -> AsyncIterator[pb.UploadFileRequest]:
            for request in requests:
                yield request

        answer: pb.UploadFileResponse = await self.stub(service_caller("webhooks")).UploadFile(stream())
        return answer

    async def download(self, project_id: str, file_id: str) -> list[bytes]:
        request = pb.DownloadFileRequest(project_id=project_id, file_id=file_id)
        return [part.content async for part in self.stub(service_caller("executor")).DownloadFile(request)]

    def stored(self) -> list[Path]:
        return [path for path in self.home.joinpath("files").rglob("*") if path.is_file()]


def contents(*parts: bytes) -> list[pb.UploadFileRequest]:
    return [pb.UploadFileRequest(content=part) for part in parts]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def files(
    tmp_path_factory: pytest.TempPathFactory, new_database_url: Callable[[], str]
) -> AsyncIterator[Running]:
    home, url = tmp_path_factory.mktemp("files"), new_database_url()
    settings = FilesSettings(
        home=home,
        database_url=url,
        internal_key=uuid4().hex + uuid4().hex,  # type: ignore[arg-type]  # pydantic makes a secret of it
        addresses={"files": f"unix:{home}/files.sock"},
        file_max_bytes=LIMIT,
        drain_s=1,
    )
    async with serving([Service(build, settings, "files")], listen=False) as process, Database(url) as database:
        yield Running(process, database, home)


async def test_what_went_in_comes_out(files: Running) -> None:
    project_id = new_text_id()
    parts = [b"a" * 1_000_000, b"", b"b" * 1024 * 1024, b"\x00\xff"]
    file = await files.upload(project_id, *parts, name="résumé.pdf", content_type="application/pdf")
    content = b"".join(parts)
    assert (file.project_id, file.name, file.content_type) == (project_id, "résumé.pdf", "application/pdf")
    assert (file.size_bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    received = await files.download(project_id, file.id)
    assert b"".join(received) == content
    assert max(map(len, received)) <= 1024 * 1024


async def test_an_empty_file_is_a_file(files: Running) -> None:
    project_id = new_text_id()
    file = await files.upload(project_id)
    assert (file.size_bytes, file.content_type) == (0, "application/octet-stream")
    assert b"".join(await files.download(project_id, file.id)) == b""


async def test_a_file_is_found_in_its_own_project_alone(files: Running) -> None:
    mine, other = new_text_id(), new_text_id()
    file = await files.upload(mine, b"secret")
    with pytest.raises(NotFound, match="FILE_NOT_FOUND"):
        await files.download(other, file.id)
    read = frozenset({int(options_pb2.PERMISSION_RUN_READ)})
    request = pb.GetFileRequest(file_id=file.id)
    found = await files.stub(Caller("user", "u", mine, read)).GetFile(request)
    assert found.file == file
    with pytest.raises(NotFound, match="FILE_NOT_FOUND"):
        await files.stub(Caller("user", "u", other, read)).GetFile(request)
    with pytest.raises(Denied):
        await files.stub(Caller("user", "u", mine)).GetFile(request)


async def test_people_do_not_upload_or_download_here(files: Running) -> None:
    person = files.stub(Caller("user", "u", new_text_id(), frozenset(range(20))))
    with pytest.raises(Denied):
        await person.DownloadFile(pb.DownloadFileRequest(project_id=new_text_id(), file_id=new_text_id())).read()


async def test_a_file_over_the_limit_leaves_nothing(files: Running) -> None:
    project_id, before = new_text_id(), len(files.stored())
    with pytest.raises(Invalid, match="FILE_TOO_LARGE"):
        await files.upload(project_id, *[b"x" * 1024 * 1024] * 3, b"y")
    assert len(files.stored()) == before
    assert await files.database.fetch("SELECT id FROM files.file WHERE project_id = $1", project_id) == []


@pytest.mark.parametrize(
    ("requests", "reason"),
    [
        ([], "FILE_HEADER_MISSING"),
        (contents(b"x"), "FILE_HEADER_MISSING"),
        ([pb.UploadFileRequest(header=pb.FileHeader(project_id="../../etc"))], "REQUEST_INVALID"),
        ([pb.UploadFileRequest(header=pb.FileHeader(project_id=str(uuid4()), name="n" * 256))], "REQUEST_INVALID"),
        ([pb.UploadFileRequest(header=pb.FileHeader(project_id=str(uuid4())))] * 2, "FILE_HEADER_REPEATED"),
        (
            [pb.UploadFileRequest(header=pb.FileHeader(project_id=str(uuid4()))), *contents(b"x" * (1024 * 1024 + 1))],
            "FILE_PART_TOO_LARGE",
        ),
    ],
)
async def test_uploads_out_of_form_are_refused(
    files: Running, requests: list[pb.UploadFileRequest], reason: str
) -> None:
    before = len(files.stored())
    with pytest.raises(Invalid, match=reason):
        await files.send(*requests)
    assert len(files.stored()) == before


@pytest.mark.parametrize("name", ["../../../etc/passwd", "..\\x", "/abs", "a\0b", "%2e%2e/%2e%2e", "con", "<script>"])
async def test_names_are_never_paths(files: Running, name: str) -> None:
    project_id = new_text_id()
    file = await files.upload(project_id, b"x", name=name)
    assert file.name == name.replace("\0", "")
    assert await files.download(project_id, file.id) == [b"x"]
    paths = [path for path in files.stored() if file.id in str(path)]
    assert len(paths) == 1


@pytest.mark.parametrize("file_id", ["../x", "%2e%2e", "", "0" * 36, "x/../../y"])
async def test_odd_ids_are_refused(files: Running, file_id: str) -> None:
    with pytest.raises((Invalid, NotFound)):
        await files.download(new_text_id(), file_id)
