"""
A topic of Kafka as the source of a consumer.

Each partition is assigned by hand and read from the offset that the consumer's own database has, so
Kafka's groups and stored offsets play no part. Messages of transactions that were aborted are not
read. Calls of librdkafka block, so each partition has a thread.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from saga_engine.errors import BrokerUnavailable, ConfigurationError
from saga_engine.events.consumers.changed_source import OffsetProblems, may_be_last
from saga_engine.events.consumers.header_attributes import content_type_attribute, read_attributes
from saga_engine.events.consumers.interfaces import IncomingMessage, SourceLag, StartPoint
from saga_engine.events.consumers.source_options import KafkaSourceOptions
from saga_engine.events.feeds.kafka_client import (
    ErrorRecord,
    client_configuration,
    problem_of,
    reason_of,
    refused_settings,
)
from saga_engine.settings import Settings

_PREFIX = "ce_"
_CONTENT_TYPE_HEADER = "content-type"
_MILLISECONDS = 1000
_PROPAGATION_MS = 1_000
"""For how long a topic that is gone is taken for one whose creation is not known everywhere yet."""

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
        self._client = _Client(consumer, options.topic, settings, notices_end=True)

    async def close(self) -> None:
        """Close the connection that asks for partitions and offsets."""
        await self._client.close()

    @property
    def description(self) -> str:
        return f"kafka {self._topic}"

    async def partition_count(self) -> int:
        seconds = self._settings.kafka_request_timeout
        metadata = await self._client.ask(lambda it: it.list_topics(self._topic, timeout=seconds))
        topic = metadata.topics[self._topic]
        if topic.error is not None:
            raise BrokerUnavailable(self._unreadable(topic.error))
        return len(topic.partitions)

    def _unreadable(self, error: KafkaError) -> str:
        if error.name() == "TOPIC_AUTHORIZATION_FAILED":
            return problem_of(error, self._topic)
        return (
            f"Topic {self._topic!r} of Kafka at {self._settings.kafka_bootstrap_servers} cannot be"
            f" read: {error.str()}. Start the feed that creates it, or correct its name."
        )

    async def measure(self, partition: int, offset: int | None) -> SourceLag | None:
        try:
            low, high = await self._range(self._client, partition)
            first = max(low, offset or 0)
            if first >= high:
                return SourceLag(0, 0.0)
            place = TopicPartition(self._topic, partition, first)
            seconds = self._settings.kafka_request_timeout
            message = await self._client.call(lambda it: _peek(it, place, seconds))
        except BrokerUnavailable:
            return None
        return _lag(message, first, high)

    @asynccontextmanager
    async def subscribe(
        self, partition: int, start: StartPoint
    ) -> AsyncIterator["KafkaSubscription"]:
        problems = OffsetProblems.of(
            f"Topic {self._topic!r}, partition {partition},", self._consumer, partition
        )
        try:
            client = _Client(self._consumer, self._topic, self._settings)
        except ConfigurationError as error:  # a file of the settings has become unreadable
            raise BrokerUnavailable(str(error)) from error
        try:
            place = await self._place(client, partition, start, problems)
            await client.call(lambda it: it.assign([place]))
            yield KafkaSubscription(client, place, start, problems, self._settings)
        finally:
            await client.close()

    async def _place(
        self, client: "_Client", partition: int, start: StartPoint, problems: OffsetProblems
    ) -> TopicPartition:
        """
        Return where to begin: one message before the next one, which is compared, if it is there.

        Raises:
            BrokerUnavailable: the partition does not have the offset, or Kafka is unavailable.
        """
        if start.offset is None:
            return TopicPartition(self._topic, partition, OFFSET_BEGINNING)
        low, high = await self._range(client, partition)
        if start.offset < low:
            raise BrokerUnavailable(problems.deleted(start.offset, low))
        if start.offset > high:
            raise BrokerUnavailable(problems.beyond_end(start.offset))
        return TopicPartition(self._topic, partition, max(low, start.offset - 1))

    async def _range(self, client: "_Client", partition: int) -> tuple[int, int]:
        """Return the first offset of a partition, and the one after its last."""
        place = TopicPartition(self._topic, partition)
        seconds = self._settings.kafka_request_timeout
        low, high = await client.ask(lambda it: it.get_watermark_offsets(place, timeout=seconds))
        return int(low), int(high)


class KafkaSubscription:
    """A partition while this process consumes it; a Subscription."""

    def __init__(
        self,
        client: "_Client",
        place: TopicPartition,
        start: StartPoint,
        problems: OffsetProblems,
        settings: Settings,
    ) -> None:
        self._client = client
        self._place = place
        self._start: StartPoint | None = start  # None: it is checked
        self._problems = problems
        self._settings = settings

    async def take(self, limit: int, seconds: float) -> Sequence[IncomingMessage]:
        found = await self._client.call(lambda it: _poll(it, limit, seconds))
        if not found:
            self._client.raise_problem()
        self._client.forget_problem()
        for each in found:
            if (error := each.error()) is not None:
                raise BrokerUnavailable(self._problem(error))
        return self._checked([self._incoming(each) for each in found])

    async def acknowledge(self, messages: Sequence[IncomingMessage]) -> None:
        """Do nothing: the offset is in the consumer's database."""

    def _checked(self, messages: list[IncomingMessage]) -> list[IncomingMessage]:
        """
        Compare the message before the offset where it begins, and leave it out.

        Raises:
            BrokerUnavailable: it is another one.
        """
        if not messages or self._start is None:
            return messages
        start, self._start = self._start, None
        first = messages[0]
        if start.offset is None or first.offset != start.offset - 1:
            return messages  # retention or compaction may have deleted the message before
        if not may_be_last(start.last_message, first):
            raise BrokerUnavailable(self._problems.other_message(start.offset))
        return messages[1:]

    def _problem(self, error: KafkaError) -> str:
        topic, partition = self._place.topic, self._place.partition
        if error.name() == "_AUTO_OFFSET_RESET":
            return (
                f"Topic {topic!r}, partition {partition}, no longer has the next offset. It is read"
                " again."
            )
        return problem_of(error, topic)

    def _incoming(self, message: Message) -> IncomingMessage:
        body = message.value() or b""
        headers, unreadable = headers_of(message)
        attributes, problem = read_attributes(headers, _PREFIX, self._settings)
        content_type = next((value for name, value in headers if _is_content_type(name)), None)
        return IncomingMessage(
            attributes=attributes | content_type_attribute(content_type),
            body=body,
            body_size=len(body),
            problem=unreadable or problem,
            offset=message.offset(),
        )


def headers_of(message: Any) -> tuple[Sequence[tuple[str, bytes]], str]:
    """Return the headers of a message of Kafka, and why they cannot be read; empty: they can."""
    try:
        return message.headers() or (), ""
    except Exception:  # noqa: BLE001 - a SystemError, of what a sender has written
        return (), "Its headers cannot be read: the name of one is not UTF-8."


def _is_content_type(header: str) -> bool:
    return len(header) == len(_CONTENT_TYPE_HEADER) and header.lower() == _CONTENT_TYPE_HEADER


class _Client:
    """
    A consumer of librdkafka, whose calls run in one thread.

    Args:
        group: as Kafka's servers see it.
        topic: that it reads, for sentences.
        settings: where Kafka is.
        notices_end: whether it gets an error at the end of a partition.
    """

    def __init__(
        self, group: str, topic: str, settings: Settings, *, notices_end: bool = False
    ) -> None:
        self._topic = topic
        self._errors = ErrorRecord()
        configuration = {
            **client_configuration(settings),
            "group.id": f"saga-engine.{group}",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "enable.partition.eof": notices_end,
            "topic.metadata.propagation.max.ms": _PROPAGATION_MS,
            "queued.max.messages.kbytes": settings.max_batch_bytes // 1024 + 1024,
            "error_cb": self._errors,
        }
        try:
            self._consumer: Any = Consumer(configuration)
        except KafkaException as error:
            raise refused_settings(error) from None
        self._executor = ThreadPoolExecutor(1, f"kafka {group}")

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
            self._errors.last = None
            raise BrokerUnavailable(problem_of(reason, self._topic)) from error

    async def ask(self, request: Callable[[Any], T]) -> T:
        """
        As `call`, for a request while no partition is assigned: its error names the server.

        Raises:
            BrokerUnavailable: Kafka is out of reach, or refuses.
        """
        return await self.call(lambda it: _ask(it, request))

    def raise_problem(self) -> None:
        """
        Raise what the connections have reported since the last call.

        Raises:
            BrokerUnavailable: they have.
        """
        error, self._errors.last = self._errors.last, None
        if error is not None:
            raise BrokerUnavailable(problem_of(error, self._topic))

    def forget_problem(self) -> None:
        """Forget what the connections have reported: messages arrive."""
        self._errors.last = None

    async def close(self) -> None:
        """Close the connections."""
        with suppress(BrokerUnavailable):
            await self.call(lambda it: it.close())
        self._executor.shutdown(wait=False)


def _ask(consumer: Any, request: Callable[[Any], T]) -> T:
    try:
        return request(consumer)
    except KafkaException:
        consumer.poll(0)  # calls `error_cb` with what the connections have reported
        raise


def _poll(consumer: Any, limit: int, seconds: float) -> list[Message]:
    """Wait for the first message, and take those that have arrived with it."""
    first = consumer.poll(seconds)
    if first is None:
        return []
    return [first, *(consumer.consume(limit - 1, 0) if limit > 1 else ())]


def _peek(consumer: Any, place: TopicPartition, seconds: float) -> Message | None:
    """Return the first message from a place on, or an error that there is none."""
    consumer.assign([place])
    try:
        found: Message | None = consumer.poll(seconds)
    finally:
        consumer.unassign()
    return found


def _lag(message: Message | None, first: int, end: int) -> SourceLag:
    """What waits from an offset on, when *message* is the first that can be read there."""
    if message is None:
        return SourceLag(end - first, None)
    if (error := message.error()) is not None:
        is_end = error.name() == "_PARTITION_EOF"  # what is there are markers of transactions
        return SourceLag(0, 0.0) if is_end else SourceLag(end - first, None)
    kind, milliseconds = message.timestamp()
    if kind == TIMESTAMP_NOT_AVAILABLE:
        return SourceLag(end - int(message.offset() or 0), None)
    age = time.time() - milliseconds / _MILLISECONDS
    return SourceLag(end - int(message.offset() or 0), max(0.0, age))
