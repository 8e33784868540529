"""Blobs: bodies too big for a record or a row. Promises: `contract.md`."""

from chassis.blobs.local import LocalBlobs
from chassis.blobs.port import Blobs, Stored

__all__ = ["Blobs", "LocalBlobs", "Stored"]
