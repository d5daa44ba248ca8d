"""
A Kafka topic as a sink: an event is a message whose key is its stream.

librdkafka is called in a thread of the sink, one call at a time. After a message that was not
delivered the producer is dropped, and the events that were not confirmed are published by a new
one: a retry of single messages would let later ones of a stream overtake them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from types import TracebackType
from typing import Self, TypeVar

from confluent_kafka import KafkaException

from saga_engine.errors import StoreError
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.feeds.confirmed_offsets import NO_OFFSETS, ConfirmedOffsets
from saga_engine.events.feeds.event_encoder import EncodedData, EventEncoder, encoding_problem
from saga_engine.events.feeds.feed import KafkaOptions, Unroutable
from saga_engine.events.feeds.feed_table import FeedKey
from saga_engine.events.feeds.kafka_client import problem_of, refused_settings
from saga_engine.events.feeds.kafka_message import (
    KafkaMessage,
    encode_message,
)
from saga_engine.events.feeds.kafka_producer import KafkaProducer
from saga_engine.events.feeds.kafka_topic import KafkaTopic, TopicCheck
from saga_engine.protocol.message import PublishOutcome
from saga_engine.settings import Settings

Result = TypeVar("Result")


class KafkaSink:
    """
    Publishes the events of one feed to its topic; `async with` opens and closes it.

    Args:
        key: of the feed, for the command in its sentences.
        options: as the feed declares them.
        encoder: of the events' data.
        log: the identity of the log.
        settings: where Kafka is, and how long it may take.
        read_confirmed: what Kafka had confirmed when the position was saved.

    Raises:
        ConfigurationError: librdkafka does not accept the settings.
    """

    one_at_a_time = False
    """What a producer confirms of a stream has no gap."""
    unroutable = Unroutable.STOP
    """A topic takes every event."""

    def __init__(
        self,
        key: FeedKey,
        options: KafkaOptions,
        encoder: EventEncoder,
        log: EventLog,
        settings: Settings,
        *,
        read_confirmed: Callable[[], Awaitable[ConfirmedOffsets]],
    ) -> None:
        self._key = key
        self._options = options
        self._encoder = encoder
        self._log = log
        self._settings = settings
        self._read_confirmed = read_confirmed
        self._closing = Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"kafka-{options.topic}")
        self._topic = KafkaTopic(key, options, settings, self._closing)
        self._producer: KafkaProducer | None = None
        self._position = 0
        self._check: TopicCheck | None = None  # None: it has to be checked before publishing
        self._is_single = False  # a request was too large: find the event
        self.problem: str | None = None
        self.differences: tuple[str, ...] = ()
        self.confirmed_offsets = NO_OFFSETS

    async def __aenter__(self) -> Self:
        try:
            await self._in_thread(self._new_producer, self._options.max_message_bytes)
        except KafkaException as error:
            self._thread.shutdown()
            raise refused_settings(error) from None
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._closing.set()
        try:
            await self._in_thread(self._drop_producer)
        finally:
            self._thread.shutdown(wait=False)

    async def resume(self, position: int) -> int:
        """
        Begin with a new producer after a position, and check the topic: it may have lost events.

        That does not last as long as a lease. Without an answer the topic is checked again before
        the first event.
        """
        seconds = min(self._settings.kafka_request_timeout, self._settings.projection_lease / 3)
        confirmed = await self._read_confirmed()
        await self._in_thread(self._resume, position, confirmed, seconds)
        return position

    async def publish(self, events: Sequence[Recorded]) -> list[PublishOutcome]:
        """Publish events and wait for their confirms, for `kafka_delivery_timeout` at most."""
        try:
            encoded = await self._encoder.encode(events)
        except StoreError as error:
            self.problem = f"The schemas of the events cannot be read: {error}"
            return [PublishOutcome.NACKED] * len(events)
        return await self._in_thread(self._publish, events, encoded)

    def explain(self, event: Recorded, _outcome: PublishOutcome) -> str:
        """Return why an event cannot be published, and what an operator can do about it."""
        if self._check and self._check.refusal:
            return self._check.refusal
        problem = encoding_problem(self._encoder, event, self._key.retry_command)
        if problem:
            return problem
        message = self._message(event, self._encoder.encode_one(event))
        return (
            f"The message has {message.size:,} bytes, and the limit of topic"
            f" {self._options.topic!r} is {self._limit:,}: the smaller one of max_message_bytes of"
            " the feed and max.message.bytes of the topic, or a limit of the Kafka servers. Raise"
            f" it, then run `{self._key.retry_command}`; or discard the event."
        )

    @property
    def _limit(self) -> int:
        """The largest message that the topic and the feed allow."""
        return self._check.max_message_bytes if self._check else self._options.max_message_bytes

    async def _in_thread(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Call a function in the thread of the sink; it ends soon if this is cancelled."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, function, *arguments)
        except asyncio.CancelledError:
            self._closing.set()
            raise

    def _resume(self, position: int, confirmed: ConfirmedOffsets, seconds: float) -> None:
        self._position = position
        self.confirmed_offsets = confirmed
        self._check = self.problem = None
        self._drop_producer()
        self._check_topic(seconds)

    def _publish(
        self, events: Sequence[Recorded], encoded: Sequence[EncodedData | None]
    ) -> list[PublishOutcome]:
        if self._check is None:
            self._check_topic(self._settings.kafka_request_timeout)
        if self._check is None:
            return [PublishOutcome.NACKED] * len(events)
        if self._check.refusal:
            return [PublishOutcome.UNPUBLISHABLE] * len(events)
        messages = self._messages_until_unpublishable(events, encoded)
        outcomes = self._deliver(messages)
        for event, outcome in zip(events, outcomes, strict=False):
            if outcome is PublishOutcome.CONFIRMED:
                self._position = max(self._position, event.position)
        if len(messages) < len(events):
            outcomes.append(PublishOutcome.UNPUBLISHABLE)
        not_sent = [PublishOutcome.NACKED] * (len(events) - len(outcomes))
        return [*outcomes, *not_sent]

    def _messages_until_unpublishable(
        self, events: Sequence[Recorded], encoded: Sequence[EncodedData | None]
    ) -> list[KafkaMessage]:
        """Make the messages of the events before the first that can never be published."""
        messages: list[KafkaMessage] = []
        for event, data in zip(events, encoded, strict=True):
            if data is None:
                break
            message = self._message(event, data)
            if message.size > self._limit:
                break
            messages.append(message)
        return messages

    def _message(self, event: Recorded, data: EncodedData) -> KafkaMessage:
        return encode_message(event, data, self._log.id)

    def _deliver(self, messages: Sequence[KafkaMessage]) -> list[PublishOutcome]:
        """Deliver messages; after a failure the next call begins with a new producer."""
        producer = self._producer or self._new_producer(self._limit)
        outcomes = producer.publish(messages, self._settings.kafka_delivery_timeout)
        self.confirmed_offsets = self.confirmed_offsets.after(producer.next_offsets)
        failure = producer.failure
        if failure is None:
            self.problem = None
            if self._is_single:
                self._is_single = False
                self._drop_producer()  # the next one sends many messages at once again
            return outcomes
        self._producer = None
        self._check = None  # the topic may have been deleted or changed, or have lost events
        self._is_single = producer.was_too_large
        self.problem = problem_of(failure, self._options.topic)
        return outcomes

    def _check_topic(self, seconds: float) -> None:
        check = self._topic.check(self._position, self.confirmed_offsets, seconds)
        if check.is_missing:
            self.confirmed_offsets = NO_OFFSETS
        if check.problem:
            self.problem = check.problem
            return
        self._check = check
        self.differences = check.differences
        self.confirmed_offsets = self.confirmed_offsets.of(check.name, self._options.partitions)

    def _new_producer(self, max_message_bytes: int) -> KafkaProducer:
        self._producer = KafkaProducer(
            self._options,
            max_message_bytes,
            self._settings,
            self._closing,
            is_single=self._is_single,
        )
        return self._producer

    def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer:
            producer.close()
