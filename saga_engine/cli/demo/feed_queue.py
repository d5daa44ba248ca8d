"""A queue that is bound to the exchange of feeds, and the events of the demo that reach it."""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack, suppress

from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.amqp.consumer import Consumer
from saga_engine.lifecycle import AsyncResource
from saga_engine.protocol.message import Delivery
from saga_engine.protocol.topology import FEED, FEED_TOPOLOGY, Binding, Queue, Topology
from saga_engine.settings import Settings
from saga_engine.vocabulary import ConnectionRole

_BATCH = 100  # Deliveries that are taken at once.


class FeedQueue(AsyncResource):
    """
    The queue, from its binding until `async with` ends; it is exclusive.

    Args:
        broker_url: of the exchange.
        streams: what the names of the demo's streams begin with; other messages are dropped.
        settings: of the connection.
    """

    def __init__(self, broker_url: str, streams: str, settings: Settings) -> None:
        name = f"saga.demo.{streams}"
        topology = Topology(
            exchanges=FEED_TOPOLOGY.exchanges,
            queues=(Queue(name, exclusive=True),),
            bindings=(Binding(name, FEED, "order.*"),),
        )
        self._streams = streams
        self._connection = SupervisedConnection(
            broker_url, role=ConnectionRole.CONSUME, settings=settings, topology=topology
        )
        self._consumer = Consumer(self._connection, [name])

    async def _open(self, resources: AsyncExitStack) -> None:
        await resources.enter_async_context(self._connection)
        await resources.enter_async_context(self._consumer)

    async def receive(self, ids: Collection[str], seconds: float) -> Sequence[Delivery]:
        """Return what has arrived, in order, when each id has or when the time is over."""
        received: list[Delivery] = []
        missing = set(ids)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while missing:
                    deliveries = await self._consumer.take(_BATCH)
                    await self._consumer.acknowledge(deliveries)
                    own = [each for each in deliveries if self._is_own(each)]
                    received += own
                    missing -= {each.message_id for each in own}
        return received

    def _is_own(self, delivery: Delivery) -> bool:
        return str(delivery.headers.get("ce-subject")).startswith(self._streams)
