"""
Where the author says a consumer's events come from.

    Consumer("billing", source=from_queue())
"""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueueOptions:
    """
    A queue of RabbitMQ that is bound to the exchange of feeds.

    Args:
        name: of the queue; None: `saga.consumer.<consumer>`.
        keys: the routing keys that it is bound to; None: those of the events that the consumer has
            a function for.
    """

    name: str | None
    keys: Collection[str] | None


SourceOptions = QueueOptions
"""What an author declares about the source of a consumer."""


def from_queue(name: str | None = None, *, keys: Collection[str] | None = None) -> QueueOptions:
    """
    Receive the events of a feed to the exchange over a queue of the consumer's own.

    The queue is a durable quorum queue with a single active consumer, and is declared and bound
    when the consumer starts. It keeps the events while no process runs.

    Args:
        name: of the queue; by default `saga.consumer.<consumer>`.
        keys: routing keys, `order.#` for all events of orders; by default those of the events that
            the consumer has a function for.
    """
    return QueueOptions(name, keys)
