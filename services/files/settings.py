"""What an operator can set for files.

Decides: names, defaults and bounds. Leaves: obeying them to files.py.
"""

from pydantic import Field

from chassis.settings import ServiceSettings


class FilesSettings(ServiceSettings):
    """Settings of the files service, each as `MILLRACE_<NAME>`."""

    file_max_bytes: int = Field(100 * 1024 * 1024, ge=1)
    """Largest file that is taken."""
