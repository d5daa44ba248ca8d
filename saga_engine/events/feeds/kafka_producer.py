"""
One producer of librdkafka, which lives until an event is not delivered.

It is idempotent, and fails as a whole: what it has confirmed of a partition has no gap. Messages
have no timeout of their own, because one that expires lets later ones of its stream overtake it.
Instead everything is purged when the time for a batch is over.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Event

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from saga_engine.events.feeds.feed import KafkaOptions
from saga_engine.events.feeds.kafka_client import (
    POLL_SECONDS,
    SILENT,
    TIMED_OUT,
    ErrorRecord,
    client_configuration,
)
from saga_engine.events.feeds.kafka_message import KafkaMessage
from saga_engine.events.feeds.kafka_partition import partition_of
from saga_engine.protocol.message import PublishOutcome
from saga_engine.settings import Settings

_KILOBYTE = 1024
_MIN_MESSAGE_BYTES = 1000  # the smallest `message.max.bytes` of librdkafka
_MAX_BATCH_BYTES = 1_000_000  # the default of `batch.size`
_TOO_LARGE = "MSG_SIZE_TOO_LARGE"
_PURGED = ("_PURGE_QUEUE", "_PURGE_INFLIGHT")
"""What becomes of the messages after one that has failed; they say nothing of the reason."""

_RAISED_BY_POLL = (KafkaException, SystemError)
"""
What `poll` and `flush` raise when librdkafka cannot go on.

The callbacks of that call run with the exception already set, and Python makes it the cause of a
SystemError.
"""


class KafkaProducer:
    """
    Publishes messages until one is not delivered. Its methods block: they are called in a thread.

    Args:
        options: what the feed declares.
        max_message_bytes: the limit of the topic.
        settings: where Kafka is.
        closing: when it is set, methods return early.
        is_single: each request has one message, so that one that is too large fails alone.
    """

    def __init__(
        self,
        options: KafkaOptions,
        max_message_bytes: int,
        settings: Settings,
        closing: Event,
        *,
        is_single: bool,
    ) -> None:
        self._topic = options.topic
        self._partitions = options.partitions
        self._closing = closing
        self._is_single = is_single
        self._errors = ErrorRecord()
        self._refused: dict[int, KafkaError] = {}  # why messages were not delivered, by their index
        self._stored: dict[int, Message] = {}  # what was delivered of the last batch
        self.failure: KafkaError | None = None
        """Why not everything was delivered: the producer is closed. None: it can be used."""
        self._producer: Producer = Producer(
            {
                **client_configuration(settings),
                "acks": "all",
                "enable.idempotence": True,
                "enable.gapless.guarantee": True,
                "message.timeout.ms": 0,
                "compression.type": options.compression,
                "message.max.bytes": max(_MIN_MESSAGE_BYTES, max_message_bytes),
                "batch.size": min(_MAX_BATCH_BYTES, max_message_bytes),
                "queue.buffering.max.kbytes": settings.event_batch_bytes // _KILOBYTE + _KILOBYTE,
                **({"batch.num.messages": 1} if is_single else {}),
                "error_cb": self._errors,
            },
            logger=SILENT,
        )

    @property
    def was_too_large(self) -> bool:
        """Whether Kafka has refused a request because of its size."""
        return any(each.name() == _TOO_LARGE for each in self._refused.values())

    def publish(self, messages: Sequence[KafkaMessage], seconds: float) -> list[PublishOutcome]:
        """
        Publish messages in their order, and wait for their confirms.

        Returns:
            An outcome each. If not all are CONFIRMED, the producer has a `failure` and is closed.
        """
        deadline = time.monotonic() + seconds
        self._stored = {}
        outcomes = [PublishOutcome.UNKNOWN] * len(messages)
        fatal: KafkaError | None = None
        try:
            self._send(messages, outcomes, deadline)
        except _RAISED_BY_POLL as error:
            fatal = _fatal_error(error)
        if any(each is not PublishOutcome.CONFIRMED for each in outcomes):
            self.close()
            self.failure = self._refusal() or fatal or self._errors.last or TIMED_OUT
            self._find_too_large(outcomes)
        return outcomes

    @property
    def next_offsets(self) -> dict[int, int]:
        """Of the partitions of the last batch, the offset after what was confirmed there."""
        found: dict[int, int] = {}
        for message in self._stored.values():
            partition, offset = message.partition(), message.offset()
            if partition is not None and offset is not None:
                found[partition] = max(found.get(partition, 0), offset + 1)
        return found

    def close(self) -> None:
        """Drop what is not delivered, and close the connections."""
        with suppress(*_RAISED_BY_POLL):  # the same that ended `publish`
            self._producer.purge()
            self._producer.flush(POLL_SECONDS)
        with suppress(*_RAISED_BY_POLL):
            self._producer.close()

    def _send(
        self, messages: Sequence[KafkaMessage], outcomes: list[PublishOutcome], deadline: float
    ) -> None:
        for index, message in enumerate(messages):
            delivered = self._on_delivery(outcomes, index)
            while not self._enqueue(message, delivered):
                self._producer.poll(POLL_SECONDS)
                if self._must_end(deadline):
                    return
        while self._producer.flush(POLL_SECONDS) and not self._must_end(deadline):
            pass

    def _enqueue(
        self, message: KafkaMessage, delivered: Callable[[KafkaError | None, Message], None]
    ) -> bool:
        """Hand a message to librdkafka; False if its buffer is full."""
        try:
            self._producer.produce(
                self._topic,
                message.value,
                message.key,
                partition_of(message.key, self._partitions),
                on_delivery=delivered,
                headers=list(message.headers),
            )
        except BufferError:
            return False
        return True

    def _on_delivery(
        self, outcomes: list[PublishOutcome], index: int
    ) -> Callable[[KafkaError | None, Message], None]:
        def delivered(error: KafkaError | None, message: Message) -> None:
            # It calls nothing: `poll` may have set an exception before, see _RAISED_BY_POLL.
            if error is None:
                outcomes[index] = PublishOutcome.CONFIRMED
                self._stored[index] = message
            else:
                self._refused[index] = error

        return delivered

    def _refusal(self) -> KafkaError | None:
        """Return why the first message was not delivered that did not only follow another one."""
        reasons = (each for each in self._refused.values() if each.name() not in _PURGED)
        return next(reasons, None)

    def _find_too_large(self, outcomes: list[PublishOutcome]) -> None:
        for index, error in self._refused.items():
            if self._is_single and error.name() == _TOO_LARGE:
                outcomes[index] = PublishOutcome.UNPUBLISHABLE

    def _must_end(self, deadline: float) -> bool:
        return bool(self._refused) or self._closing.is_set() or time.monotonic() >= deadline


def _fatal_error(error: Exception) -> KafkaError:
    """Return the error of librdkafka in an exception of `poll`, and raise any other one."""
    cause = error.__cause__ if isinstance(error, SystemError) else error
    if not isinstance(cause, KafkaException):
        raise error
    found: KafkaError = cause.args[0]
    return found
