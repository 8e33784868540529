"""Files: owns file; keeps content in the blob store, which only this service knows; calls no other service.

Decides: what is opened, and where blobs lie. Leaves: storing to files.py.
"""

from millrace.files.v1.file_pb2_grpc import add_FileServiceServicer_to_server

from chassis.backings import open_database
from chassis.blobs import LocalBlobs
from chassis.lifecycle import Chassis, Running
from services.files.file_store import FileStore
from services.files.files import Files
from services.files.rpc import FileRpc
from services.files.settings import FilesSettings


async def build(settings: FilesSettings, chassis: Chassis) -> Running:
    """Open the database and the blob store."""
    database = await open_database(chassis)
    blobs = await chassis.open(LocalBlobs(settings.home / "files"))
    files = Files(FileStore(database), blobs, chassis.clock, settings.file_max_bytes)
    return Running(servicers=[(add_FileServiceServicer_to_server, FileRpc(files))])
