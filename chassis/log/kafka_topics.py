"""Topics in Kafka: making them, deleting them, and which incarnation of a name one is looking at.

Decides: partitions, replicas (three where there are three brokers, then two in sync) and no unclean election; the
epoch is the cluster's id with the topic's id, which Kafka mints anew for each creation.
Leaves: publishing to `kafka`, reading to `kafka_consumer`. aiokafka speaks no metadata request with topic ids, so
version 12 of it (Kafka 3.1 and later) is described here.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    KafkaError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

_RETRY_S = 0.1
_ADMIN_TIMEOUT_MS = 8000


class _Uuid(AbstractType[bytes]):
    """A UUID on the wire: 16 bytes."""

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(16)


_NONE = bytes(16)
_TEXT = CompactString("utf-8")


class _MetadataResponse12(Response):
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT), ("tags", TaggedFields)),
        ),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", _TEXT),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _MetadataRequest12(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 12
    RESPONSE_TYPE = _MetadataResponse12
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("name", _TEXT), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _TopicIdRequest(Request[_MetadataRequest12]):
    API_KEY = 3

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def build(self, request_struct_class: type[_MetadataRequest12]) -> _MetadataRequest12:
        return request_struct_class([(_NONE, self._topic, {})], False, False, {})


async def epoch_of(client: AIOKafkaClient, topic: str) -> str | None:
    """Return the topic's epoch, None when there is no such topic. Raises: KafkaError."""
    node = client.get_random_node()
    if node is None:
        raise KafkaError("no broker is known")
    answer: Any = await client.send(node, _TopicIdRequest(topic))
    for error_code, name, topic_id, *_ in answer.topics:
        if name != topic:
            continue
        failed = for_code(error_code)
        if failed is UnknownTopicOrPartitionError:
            return None
        if topic_id == _NONE:
            raise failed(f"topic {topic} has no id yet")
        return f"{answer.cluster_id}:{topic_id.hex()}"
    return None


class KafkaTopics:
    """The rare, administrative calls; each opens a connection of its own."""

    def __init__(self, bootstrap: str, partitions: int, replication: int) -> None:
        self._bootstrap = bootstrap
        self._partitions = partitions
        self._replication = replication

    async def create(self, topic: str) -> None:
        """Make a topic; one that exists stays as it is. Raises: KafkaError."""
        async with self._admin() as admin:
            brokers = len((await admin.describe_cluster())["brokers"])
            replicas = self._replication or min(3, brokers)
            in_sync = "2" if replicas > 2 else "1"
            settings = {"min.insync.replicas": in_sync, "unclean.leader.election.enable": "false"}
            answer: Any = await admin.create_topics(
                [NewTopic(topic, self._partitions, replicas, topic_configs=settings)]
            )
            for _, error_code, *rest in answer.topic_errors:
                failed = for_code(error_code)
                if error_code and failed is not TopicAlreadyExistsError:
                    raise failed(*rest)

    async def delete(self, topic: str, client: AIOKafkaClient) -> None:
        """Delete a topic and wait until the cluster no longer knows it. Raises: KafkaError."""
        async with self._admin() as admin:
            before = await epoch_of(client, topic)
            if before is None:
                return
            await admin.delete_topics([topic])
            while await epoch_of(client, topic) == before:  # noqa: ASYNC110  # the cluster sends no word of it
                await asyncio.sleep(_RETRY_S)

    async def trim(self, topic: str, partition: int, before_offset: int) -> None:
        """Forget the records before an offset. Raises: KafkaError."""
        async with self._admin() as admin:
            await admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(before_offset)})

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap, request_timeout_ms=_ADMIN_TIMEOUT_MS)
        try:
            await admin.start()
            yield admin
        finally:
            await admin.close()
