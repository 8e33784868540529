"""Starts files alone: `python -m services.files`."""

from chassis.lifecycle import run_service
from services.files.service import build
from services.files.settings import FilesSettings

if __name__ == "__main__":
    run_service(build, FilesSettings)
