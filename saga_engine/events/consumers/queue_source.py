"""
A queue of RabbitMQ as the source of a consumer.

The queue has a single active consumer, so its messages are applied in their order also while a
process that has lost its lease has not noticed it. A message is acknowledged after the commit; the
broker delivers the others again, to the next process.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from saga_engine.amqp.batch_budget import BatchBudget
from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.amqp.consumer import Consumer as QueueConsumer
from saga_engine.amqp.consumer_watchdog import queue_depth
from saga_engine.errors import BrokerUnavailable
from saga_engine.events.consumers.consumer import Consumer
from saga_engine.events.consumers.header_attributes import content_type_attribute
from saga_engine.events.consumers.interfaces import IncomingMessage, SourceLag, StartPoint
from saga_engine.events.consumers.source_options import QueueSourceOptions
from saga_engine.protocol.message import Delivery
from saga_engine.protocol.topology import Topology, consumer_queue, consumer_topology
from saga_engine.settings import Settings

_PREFIX = "ce-"


def queue_topology(consumer: Consumer, options: QueueSourceOptions) -> Topology:
    """Return what a consumer needs on the broker."""
    # `#.` is any number of words: the name of a stream's category may have dots.
    keys = options.keys or [f"#.{each}" for each in sorted(consumer.handlers)]
    return consumer_topology(_queue_name(consumer, options), [*keys])


class QueueSource:
    """
    One queue; a Source of one partition without offsets.

    Args:
        consumer: whose queue it is.
        options: of the queue.
        connection: which declares the queue; the sources of a process share it.
        settings: the prefetch, and how much is taken at once.
    """

    def __init__(
        self,
        consumer: Consumer,
        options: QueueSourceOptions,
        connection: SupervisedConnection,
        settings: Settings,
    ) -> None:
        self._queue = _queue_name(consumer, options)
        self._connection = connection
        self._settings = settings

    @property
    def description(self) -> str:
        return f"queue {self._queue}"

    async def partition_count(self) -> int:
        return 1

    async def measure(self, _partition: int, _offset: int | None) -> SourceLag | None:
        """Count the messages; RabbitMQ does not say how old they are."""
        messages = await queue_depth(self._connection, self._queue)
        return None if messages is None else SourceLag(messages, None)

    @asynccontextmanager
    async def subscribe(
        self, _partition: int, _start: StartPoint
    ) -> AsyncIterator["QueueSubscription"]:
        prefetch = self._settings.consumer_prefetch
        consumer = QueueConsumer(self._connection, [self._queue], prefetch=prefetch)
        try:
            async with asyncio.timeout(self._settings.projection_lease):
                await consumer.__aenter__()
        except TimeoutError:
            raise BrokerUnavailable(
                f"Queue {self._queue!r} cannot be consumed: the broker is unreachable."
            ) from None
        try:
            yield QueueSubscription(consumer, self._settings)
        finally:
            await consumer.__aexit__(None, None, None)


class QueueSubscription:
    """The queue while this process consumes it; a Subscription."""

    def __init__(self, consumer: QueueConsumer, settings: Settings) -> None:
        self._consumer = consumer
        self._budget = BatchBudget(settings.max_batch_bytes, settings.max_batch_json_values)

    async def take(self, limit: int, seconds: float) -> Sequence[IncomingMessage]:
        try:
            async with asyncio.timeout(seconds):
                deliveries = await self._consumer.take(limit, self._budget)
        except TimeoutError:
            return []
        return [_incoming(each) for each in deliveries]

    async def acknowledge(self, messages: Sequence[IncomingMessage]) -> None:
        await self._consumer.acknowledge(each.delivery for each in messages)


def _incoming(delivery: Delivery) -> IncomingMessage:
    attributes = {
        name.removeprefix(_PREFIX): value
        for name, value in delivery.headers.items()
        if name.startswith(_PREFIX)
    }
    return IncomingMessage(
        attributes=attributes | content_type_attribute(delivery.content_type),
        body=delivery.body,
        body_size=delivery.body_size,
        content_encoding=delivery.content_encoding,
        problem=delivery.header_problem,
        delivery=delivery,
    )


def _queue_name(consumer: Consumer, options: QueueSourceOptions) -> str:
    return options.name or consumer_queue(consumer.name)
