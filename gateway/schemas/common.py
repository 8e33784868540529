"""What all schemas share: the base of models, times, and JSON that is passed on unopened.

Decides: how times are written. Leaves: everything of one domain to the module of that domain.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import BaseModel, ConfigDict

Json = object
"""A value that `msgspec.json.encode` takes."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Model(BaseModel):
    """Base of what is documented. Unknown fields are refused, so that a misspelt one is not silently ignored."""

    model_config = ConfigDict(extra="forbid")


def example(value: Any) -> ConfigDict:
    """The configuration of a model that shows an example of itself."""
    return ConfigDict(json_schema_extra={"example": value})


def time_view(stamp: Timestamp) -> datetime:
    """A time as JSON shows it (RFC 3339, UTC)."""
    return _EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1000)


def json_view(document: bytes) -> msgspec.Raw | None:
    """JSON bytes as a part of an answer, not decoded on the way; null when there is none."""
    return msgspec.Raw(document) if document else None


def enum_views(enum: EnumDescriptor, prefix: str) -> dict[int, str]:
    """Number → the word of an enum in JSON: lower case, without its prefix."""
    return {value.number: value.name.removeprefix(prefix).lower() for value in enum.values}
