"""A stream and a topic, as an operator makes, empties and deletes them."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions
from rstream import CompressionType
from rstream import Producer as StreamProducer

from saga_engine.events import from_kafka, from_stream
from saga_engine.events.feeds.stream_message import encode_amqp
from tests.kit.connections import raw_channel
from tests.kit.consumers import order
from tests.kit.kafka_topics import create_topic, delete_topic, new_topic
from tests.kit.rabbitmq import RabbitMQServer
from tests.kit.streams import stream_url


class StreamUnderTest:
    """The super stream `orders` of a virtual host, of one partition at first."""

    options = from_stream("orders")

    def __init__(self, server: RabbitMQServer, broker_url: str) -> None:
        self._server, self._url = server, broker_url

    @property
    def settings(self) -> Mapping[str, Any]:
        """Where it is."""
        stream = stream_url(self._server, self._url)
        return {"broker_url": self._url, "broker_stream_url": stream}

    async def create(self, partition: int = 0) -> None:
        """Create a partition; its retention deletes what is beyond the last dozen of messages."""
        limits = {"x-max-length-bytes": 8_000, "x-stream-max-segment-size-bytes": 2_000}
        async with raw_channel(self._url) as channel:
            await channel.queue_declare(
                f"orders-{partition}",
                durable=True,
                arguments={"x-queue-type": "stream", **limits},
            )

    async def add_partition(self) -> None:
        """Create the second partition."""
        await self.create(1)

    async def delete(self) -> None:
        """Delete it."""
        async with raw_channel(self._url) as channel:
            await channel.queue_delete("orders-0")

    async def publish_batch(self, messages: Sequence[bytes]) -> None:
        """Publish messages in one batch, compressed with gzip."""
        confirmed = asyncio.Event()

        async def confirm(_: object) -> None:
            confirmed.set()

        async with self._producer() as producer:
            await producer.send_sub_entry(
                "orders-0", messages, CompressionType.Gzip, on_publish_confirm=confirm
            )
            await confirmed.wait()

    def _producer(self) -> StreamProducer:
        vhost, port = self._url.rpartition("/")[2], self._server.stream_port
        return StreamProducer("127.0.0.1", port, username="guest", password="guest", vhost=vhost)

    async def publish(self, *numbers: int, partition: int = 0) -> None:
        """Publish orders."""
        async with self._producer() as producer:
            for number in numbers:
                message = order(number)
                named = {f"cloudEvents_{name}": str(v) for name, v in message.attributes.items()}
                content = encode_amqp(message.body, str(number), "application/json", named)
                await producer.send_wait(f"orders-{partition}", content)

    async def delete_all_but_last(self) -> None:
        """Publish so much that its retention deletes what was there."""
        await self.publish(*range(101, 141))


class TopicUnderTest:
    """A topic that no other test has."""

    def __init__(self, servers: str) -> None:
        self._servers, self._topic = servers, new_topic()
        self.options = from_kafka(self._topic)
        self.settings: Mapping[str, Any] = {
            "kafka_bootstrap_servers": servers,
            "kafka_request_timeout": 2.0,
        }

    async def create(self) -> None:
        """Create it, with one partition."""
        await create_topic(self._servers, self._topic, 1)

    async def add_partition(self) -> None:
        """Give it a second partition."""
        admin = AdminClient({"bootstrap.servers": self._servers})
        created = admin.create_partitions([NewPartitions(self._topic, 2)])
        await asyncio.wrap_future(created[self._topic])

    async def delete(self) -> None:
        """Delete it."""
        await delete_topic(self._servers, self._topic)

    async def publish(self, *numbers: int, partition: int = 0) -> None:
        """Publish orders."""
        producer = Producer({"bootstrap.servers": self._servers, "linger.ms": 0})
        for number in numbers:
            message = order(number)
            headers: Any = [(f"ce_{name}", str(v)) for name, v in message.attributes.items()]
            producer.produce(self._topic, message.body, headers=headers, partition=partition)
        await asyncio.to_thread(producer.flush)

    async def delete_all_but_last(self) -> None:
        """Publish more, and delete what was before."""
        await self.publish(*range(101, 141))
        place = TopicPartition(self._topic, 0, 40)
        admin = AdminClient({"bootstrap.servers": self._servers})
        await asyncio.wrap_future(admin.delete_records([place])[place])


SourceUnderTest = StreamUnderTest | TopicUnderTest
