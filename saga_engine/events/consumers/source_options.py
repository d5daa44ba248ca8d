"""
Where the author says a consumer's events come from.

    Consumer("billing", source=from_queue())
"""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueueSourceOptions:
    """
    A queue of RabbitMQ that is bound to the exchange of feeds.

    Args:
        name: of the queue; None: `saga.consumer.<consumer>`.
        keys: the routing keys that it is bound to; None: those of the events that the consumer has
            a function for.
    """

    name: str | None
    keys: Collection[str] | None


@dataclass(frozen=True, slots=True)
class StreamSourceOptions:
    """
    A stream of RabbitMQ, or a super stream with all its partitions.

    Args:
        stream: its name, as the feed declares it.
    """

    stream: str


@dataclass(frozen=True, slots=True)
class KafkaSourceOptions:
    """
    A topic of Kafka with all its partitions.

    Args:
        topic: its name, as the feed declares it.
    """

    topic: str


SourceOptions = QueueSourceOptions | StreamSourceOptions | KafkaSourceOptions
"""What an author declares about the source of a consumer."""


def from_queue(
    name: str | None = None, *, keys: Collection[str] | None = None
) -> QueueSourceOptions:
    """
    Receive the events of a feed to the exchange over a queue of the consumer's own.

    The queue is a durable quorum queue with a single active consumer, and is declared and bound
    when the consumer starts. It keeps the events while no process runs.

    Args:
        name: of the queue; by default `saga.consumer.<consumer>`.
        keys: routing keys, `order.#` for all events of orders; by default those of the events that
            the consumer has a function for.
    """
    return QueueSourceOptions(name, keys)


def from_stream(stream: str) -> StreamSourceOptions:
    """
    Receive the events of a feed to a stream of RabbitMQ, from the first one that it has.

    How far each partition was read is in the consumer's database. It needs the extra `streams`.

    Args:
        stream: its name, as in `feed.to_stream("orders")`. All its partitions are read.
    """
    return StreamSourceOptions(stream)


def from_kafka(topic: str) -> KafkaSourceOptions:
    """
    Receive the events of a feed to a topic of Kafka, from the first one that it has.

    How far each partition was read is in the consumer's database; Kafka's groups are not used, and
    messages of aborted transactions are not read. It needs the extra `kafka`.

    Args:
        topic: its name, as in `feed.to_kafka("orders")`. All its partitions are read.
    """
    return KafkaSourceOptions(topic)
