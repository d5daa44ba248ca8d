"""
What the client libraries reach without this project: the baseline of each sink, in the same run.

Each publishes the messages of a feed from memory, made before the time begins, and waits for every
confirm. It reads no database, saves no position, and keeps no order after a failure.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import aiormq
import httpx
from aiormq.abc import AbstractChannel
from confluent_kafka import KafkaError, Producer
from confluent_kafka import Message as KafkaMessage
from confluent_kafka.admin import AdminClient, NewTopic
from pamqp.commands import Basic
from rstream import AMQPMessage, ConfirmationStatus, Properties
from rstream import Producer as StreamProducer

from benchmarks.events.orders import LOG_ID, recorded_orders
from benchmarks.sink_servers import SinkServer
from saga_engine.events.event_store.recorded import data_json
from saga_engine.events.feeds.cloud_event import attributes, encode_event
from saga_engine.events.feeds.event_encoder import JSON_CONTENT_TYPE, JsonEncoder
from saga_engine.events.feeds.kafka_message import KafkaMessage as KafkaEvent
from saga_engine.events.feeds.kafka_message import encode_message
from saga_engine.events.feeds.stream_message import PREFIX, partition_of
from saga_engine.events.feeds.webhook_request import encode_request
from saga_engine.protocol.message import Message
from saga_engine.settings import Settings

BATCH = 500
"""Messages that are in flight at once; the default of feed_batch_size."""

_TIMEOUT = 120.0
"""Seconds for all confirms."""


async def publish_to_exchange(server: SinkServer, number: int) -> float:
    """Return the events/s of aiormq to a quorum queue that is bound to an exchange."""
    messages = [encode_event(each, LOG_ID) for each in recorded_orders(number)]
    connection = await aiormq.connect(server.address)
    try:
        channel = await connection.channel(publisher_confirms=True)
        await channel.exchange_declare("bare", exchange_type="topic", durable=True)
        quorum: Any = {"x-queue-type": "quorum"}
        await channel.queue_declare("bare", durable=True, arguments=quorum)
        await channel.queue_bind("bare", "bare", "#")

        started_at = time.perf_counter()
        for batch in _batches(messages):
            async with asyncio.TaskGroup() as tasks:
                for each in batch:
                    tasks.create_task(_publish(channel, each))
        seconds = time.perf_counter() - started_at
        await channel.queue_delete("bare")
        await channel.exchange_delete("bare")
    finally:
        await connection.close()
    return number / seconds


async def _publish(channel: AbstractChannel, message: Message) -> None:
    properties = Basic.Properties(
        delivery_mode=2, message_id=message.message_id, headers=dict(message.headers)
    )
    await channel.basic_publish(
        message.body, exchange="bare", routing_key=message.routing_key, properties=properties
    )


async def publish_to_stream(server: SinkServer, number: int, partitions: int) -> float:
    """Return the events/s of rstream, which encodes AMQP 1.0 itself, to streams."""
    streams = [f"bare-{partitions}-{each}" for each in range(partitions)]
    prepared = [
        (
            streams[partition_of(each.stream, partitions)],
            data_json(each),
            Properties(message_id=str(each.id), content_type=JSON_CONTENT_TYPE),
            {f"{PREFIX}{name}": value for name, value in attributes(each, LOG_ID, None).items()},
        )
        for each in recorded_orders(number)
    ]
    confirmed, finished = 0, asyncio.Event()

    async def on_confirm(_: ConfirmationStatus) -> None:
        nonlocal confirmed
        confirmed += 1
        if confirmed == number:
            finished.set()

    url = urlsplit(server.address)
    async with StreamProducer(
        url.hostname or "",
        server.stream_port,
        username=url.username or "",
        password=url.password or "",
    ) as producer:
        for stream in streams:
            await producer.create_stream(stream)
        started_at = time.perf_counter()
        for batch in _batches(prepared):
            of_stream: dict[str, list[AMQPMessage]] = {}
            for stream, body, properties, application_properties in batch:
                message = AMQPMessage(
                    body=body, properties=properties, application_properties=application_properties
                )
                of_stream.setdefault(stream, []).append(message)
            for stream, messages in of_stream.items():
                await producer.send_batch(stream, messages, on_publish_confirm=on_confirm)
        async with asyncio.timeout(_TIMEOUT):
            await finished.wait()
        seconds = time.perf_counter() - started_at
        for stream in streams:
            await producer.delete_stream(stream)
    return number / seconds


async def publish_to_kafka(server: SinkServer, number: int, partitions: int) -> float:
    """Return the events/s of confluent-kafka's Producer, idempotent and with snappy, to a topic."""
    return await asyncio.to_thread(_publish_to_kafka, server, number, partitions)


def _publish_to_kafka(server: SinkServer, number: int, partitions: int) -> float:
    messages = _kafka_messages(number)
    topic = f"bare-{partitions}"
    admin = AdminClient({"bootstrap.servers": server.address})
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(_TIMEOUT)
    started_at = time.perf_counter()
    _produce(server, topic, [messages])
    seconds = time.perf_counter() - started_at
    admin.delete_topics([topic])[topic].result(_TIMEOUT)
    return number / seconds


async def fill_topic(server: SinkServer, topic: str, number: int) -> None:
    """Publish the events of orders to a topic in batches, as a feed does."""
    batches = _batches(_kafka_messages(number))
    await asyncio.to_thread(_produce, server, topic, batches)


def _kafka_messages(number: int) -> Sequence[KafkaEvent]:
    encode = JsonEncoder().encode_one
    return [encode_message(each, encode(each), LOG_ID) for each in recorded_orders(number)]


def _produce(server: SinkServer, topic: str, batches: Iterable[Sequence[KafkaEvent]]) -> None:
    """Publish batches, each when the one before is confirmed."""
    failures: list[KafkaError] = []

    def on_delivery(error: KafkaError | None, _message: KafkaMessage) -> None:
        if error:
            failures.append(error)

    producer = Producer(
        {
            "bootstrap.servers": server.address,
            "enable.idempotence": True,
            "compression.type": "snappy",
            "partitioner": "murmur2_random",
        }
    )
    for batch in batches:
        for each in batch:
            producer.produce(
                topic, each.value, each.key, on_delivery=on_delivery, headers=list(each.headers)
            )
            producer.poll(0)
        if producer.flush(_TIMEOUT) or failures:
            raise RuntimeError(f"Not everything was delivered: {failures[:1]}")


async def send_to_webhook(server: SinkServer, number: int) -> float:
    """Return the events/s of httpx with as many requests at once as a feed has, unsigned."""
    requests = iter([encode_request(each, LOG_ID) for each in recorded_orders(number)])
    workers = Settings().webhook_concurrency

    async def send(client: httpx.AsyncClient) -> None:
        for request in requests:
            headers = request.headers
            answer = await client.post(server.address, content=request.body, headers=headers)
            answer.raise_for_status()

    async with httpx.AsyncClient(trust_env=False) as client:
        started_at = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(workers):
                tasks.create_task(send(client))
        return number / (time.perf_counter() - started_at)


def _batches(messages: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(messages), BATCH):
        yield messages[start : start + BATCH]
