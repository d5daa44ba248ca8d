"""Topics of a Kafka server as an operator makes them, and as a consumer reads them."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import orjson
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from saga_engine.events import Recorded
from tests.kit.feeds import Delivered, check_delivered

_SECONDS = 60
"""How long one call of a test may take."""

_numbers = count(1)


class MockCluster:
    """Three brokers of librdkafka, in this process. They know no requests about topics."""

    def __init__(self) -> None:
        self._producer = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 3})
        brokers = self._producer.list_topics(timeout=_SECONDS).brokers.values()
        self.servers = ",".join(f"{each.host}:{each.port}" for each in brokers)

    async def create_topic(self, topic: str) -> None:
        """Create a topic of four partitions."""
        await asyncio.to_thread(self._producer.list_topics, topic, _SECONDS)

    def close(self) -> None:
        """Stop them."""
        self._producer.close()


@dataclass(frozen=True)
class KafkaRecord:
    """One message of a topic."""

    partition: int
    offset: int
    key: str
    value: bytes
    headers: dict[str, str]

    @property
    def delivered(self) -> Delivered:
        """The event that it has."""
        return Delivered(self.headers["ce_id"], self.headers["ce_subject"], self.value)


def new_topic() -> str:
    """A name that no other test of the session has."""
    return f"orders-{os.getpid()}-{next(_numbers)}"


async def create_topic(
    servers: str, topic: str, partitions: int = 3, **configuration: object
) -> None:
    """Create a topic, as an operator does; `max_message_bytes` is `max.message.bytes`."""
    config = {name.replace("_", "."): str(value) for name, value in configuration.items()}
    admin = AdminClient({"bootstrap.servers": servers})
    created = admin.create_topics([NewTopic(topic, partitions, 1, config=config)])
    await asyncio.wrap_future(created[topic])


async def add_partitions(servers: str, topic: str, partitions: int) -> None:
    """Let a topic have so many partitions, as an operator does."""
    admin = AdminClient({"bootstrap.servers": servers})
    added = admin.create_partitions([NewPartitions(topic, partitions)])
    await asyncio.wrap_future(added[topic])


async def limit_messages(servers: str, topic: str, max_message_bytes: int) -> None:
    """Change the largest message that a topic takes, as an operator does."""
    operation = AlterConfigOpType.SET
    entry = ConfigEntry(
        "max.message.bytes", str(max_message_bytes), incremental_operation=operation
    )
    changed = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": servers})
    await asyncio.wrap_future(admin.incremental_alter_configs([changed])[changed])


async def delete_topic(servers: str, topic: str) -> None:
    """Delete a topic with its messages."""
    admin = AdminClient({"bootstrap.servers": servers})
    await asyncio.wrap_future(admin.delete_topics([topic])[topic])


async def read_topic(servers: str, topic: str) -> list[KafkaRecord]:
    """Read every message of a topic, partition by partition."""
    return await asyncio.to_thread(_read, servers, topic)


def check_records(records: Sequence[KafkaRecord], events: Sequence[Recorded]) -> None:
    """Every event is in the topic, in the order of its stream, with its data; see there."""
    check_delivered([each.delivered for each in records], events)
    partitions: dict[str, int] = {}
    for record in records:
        assert record.key == record.headers["ce_subject"]
        assert partitions.setdefault(record.key, record.partition) == record.partition
        orjson.loads(record.value)


def _read(servers: str, topic: str) -> list[KafkaRecord]:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": f"read-{topic}"})
    try:
        partitions = consumer.list_topics(topic, timeout=_SECONDS).topics[topic].partitions
        ends = {
            each: consumer.get_watermark_offsets(TopicPartition(topic, each), timeout=_SECONDS)
            for each in partitions
        }
        consumer.assign([TopicPartition(topic, each, low) for each, (low, _) in ends.items()])
        expected = sum(high - low for low, high in ends.values())
        records: list[KafkaRecord] = []
        while len(records) < expected:
            messages = consumer.consume(min(1_000, expected - len(records)), timeout=_SECONDS)
            assert messages, f"{len(records)} of {expected} messages could be read"
            records += map(_record, messages)
        return records
    finally:
        consumer.close()


def _record(message: Any) -> KafkaRecord:
    assert message.error() is None, message.error()
    headers = {name: value.decode() for name, value in message.headers()}
    return KafkaRecord(
        message.partition(), message.offset(), message.key().decode(), message.value(), headers
    )
