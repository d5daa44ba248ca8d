"""
A topic of Kafka as the source of a consumer.

Each partition is assigned by hand and read from the offset that the consumer's own database has, so
Kafka's groups and stored offsets play no part. Messages of transactions that were aborted are not
read. Calls of librdkafka block, so each partition has a thread.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from saga_engine.errors import BrokerUnavailable
from saga_engine.events.consumers.header_attributes import content_type_attribute, read_attributes
from saga_engine.events.consumers.interfaces import IncomingMessage
from saga_engine.events.consumers.source_options import KafkaSourceOptions
from saga_engine.events.feeds.kafka_client import (
    ErrorRecord,
    client_configuration,
    problem_of,
    reason_of,
)
from saga_engine.settings import Settings

_PREFIX = "ce_"
_CONTENT_TYPE_HEADER = "content-type"

T = TypeVar("T")


class KafkaSource:
    """
    One topic; a Source with the partitions and offsets of Kafka.

    Args:
        consumer: the name of the consumer, which Kafka's servers see as the group.
        options: of the topic.
        settings: where Kafka is, and how much is taken at once.
    """

    def __init__(self, consumer: str, options: KafkaSourceOptions, settings: Settings) -> None:
        self._topic = options.topic
        self._consumer = consumer
        self._settings = settings
        self._client = _Client(consumer, options.topic, settings)

    async def close(self) -> None:
        """Close the connection that asks for partitions and offsets."""
        await self._client.close()

    @property
    def description(self) -> str:
        return f"kafka {self._topic}"

    async def partition_count(self) -> int:
        seconds = self._settings.kafka_request_timeout
        metadata = await self._client.call(lambda it: it.list_topics(self._topic, timeout=seconds))
        topic = metadata.topics[self._topic]
        if topic.error is not None:
            raise BrokerUnavailable(
                f"Topic {self._topic!r} cannot be read: {topic.error.str()}. Start the feed that"
                " creates it, or correct its name."
            )
        return len(topic.partitions)

    async def waiting_count(self, partition: int, offset: int | None) -> int | None:
        place = TopicPartition(self._topic, partition)
        seconds = self._settings.kafka_request_timeout
        try:
            low, high = await self._client.call(
                lambda it: it.get_watermark_offsets(place, timeout=seconds)
            )
        except BrokerUnavailable:
            return None
        waiting: int = high - max(low, offset or 0)
        return max(0, waiting)

    @asynccontextmanager
    async def subscribe(
        self, partition: int, offset: int | None
    ) -> AsyncIterator["KafkaSubscription"]:
        client = _Client(self._consumer, self._topic, self._settings)
        start = OFFSET_BEGINNING if offset is None else offset
        try:
            place = TopicPartition(self._topic, partition, start)
            await client.call(lambda it: it.assign([place]))
            yield KafkaSubscription(self._consumer, client, place, self._settings)
        finally:
            await client.close()


class KafkaSubscription:
    """A partition while this process consumes it; a Subscription."""

    def __init__(
        self, consumer: str, client: "_Client", place: TopicPartition, settings: Settings
    ) -> None:
        self._consumer = consumer
        self._client = client
        self._place = place
        self._settings = settings

    async def take(self, limit: int, seconds: float) -> Sequence[IncomingMessage]:
        found = await self._client.call(lambda it: _poll(it, limit, seconds))
        if not found:
            self._client.raise_problem()
        for each in found:
            if (error := each.error()) is not None:
                raise BrokerUnavailable(self._problem(error))
        return [self._incoming(each) for each in found]

    async def acknowledge(self, messages: Sequence[IncomingMessage]) -> None:
        """Do nothing: the offset is in the consumer's database."""

    def _problem(self, error: KafkaError) -> str:
        topic, partition = self._place.topic, self._place.partition
        if error.name() == "_AUTO_OFFSET_RESET":
            return (
                f"Topic {topic!r}, partition {partition}, no longer has offset"
                f" {self._place.offset}: the retention has deleted it, or the topic was made again."
                " To go on at another one, run `saga-engine consumers rewind"
                f" {self._consumer} --partition {partition} --to OFFSET`."
            )
        return problem_of(error, topic)

    def _incoming(self, message: Message) -> IncomingMessage:
        body = message.value() or b""
        headers: Any = message.headers() or ()
        attributes, problem = read_attributes(headers, _PREFIX, self._settings)
        content_type = next((value for name, value in headers if _is_content_type(name)), None)
        return IncomingMessage(
            attributes=attributes | content_type_attribute(content_type),
            body=body[: self._settings.max_body_bytes],
            body_size=len(body),
            problem=problem,
            offset=message.offset(),
        )


def _is_content_type(header: str) -> bool:
    return len(header) == len(_CONTENT_TYPE_HEADER) and header.lower() == _CONTENT_TYPE_HEADER


class _Client:
    """A consumer of librdkafka, whose calls run in one thread."""

    def __init__(self, group: str, topic: str, settings: Settings) -> None:
        self._topic = topic
        self._errors = ErrorRecord()
        self._executor = ThreadPoolExecutor(1, f"kafka {group}")
        self._consumer: Any = Consumer(
            {
                **client_configuration(settings),
                "group.id": f"saga-engine.{group}",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                "queued.max.messages.kbytes": settings.max_batch_bytes // 1024 + 1024,
                "error_cb": self._errors,
            }
        )

    async def call(self, function: Callable[[Any], T]) -> T:
        """
        Call a function with the consumer in its thread.

        Raises:
            BrokerUnavailable: Kafka is out of reach, or refuses.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._executor, function, self._consumer)
        except KafkaException as error:
            reason = reason_of(error.args[0], self._errors)
            raise BrokerUnavailable(problem_of(reason, self._topic)) from error

    def raise_problem(self) -> None:
        """
        Raise what the connections have reported since the last call.

        Raises:
            BrokerUnavailable: they have.
        """
        error, self._errors.last = self._errors.last, None
        if error is not None:
            raise BrokerUnavailable(problem_of(error, self._topic))

    async def close(self) -> None:
        """Close the connections."""
        with suppress(BrokerUnavailable):
            await self.call(lambda it: it.close())
        self._executor.shutdown(wait=False)


def _poll(consumer: Any, limit: int, seconds: float) -> list[Message]:
    """Wait for the first message, and take those that have arrived with it."""
    first = consumer.poll(seconds)
    if first is None:
        return []
    return [first, *(consumer.consume(limit - 1, 0) if limit > 1 else ())]
