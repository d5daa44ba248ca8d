"""
Whether we really consume: a look at the queues from outside the consuming channel.

A broker tells a consumer that its queue was deleted, but not always: after a failover or a lost
definition it may just have forgotten it. Rule: a queue that is gone, or that has messages ready
while nobody consumes it, or while we hold none and get none, means to begin again.

That nobody consumes a queue without messages is not believed: when the leader of a quorum queue
does not answer within 250 ms, RabbitMQ answers for it, with no messages and no consumers. To begin
again because of that would return all that we hold, and what is returned too often becomes a dead
letter.

Nobody is told of an exchange or a binding that was deleted, and whether a binding exists cannot be
asked: so the whole topology is declared again at each look, which changes nothing when it is there.
"""

from collections.abc import Sequence

from aiormq.channel import Channel
from aiormq.exceptions import ChannelAccessRefused, ChannelLockedResource, ChannelNotFoundEntity

from saga_engine.amqp import driver
from saga_engine.amqp.connection import ANSWERING, Link
from saga_engine.amqp.delivery_channel import DeliveryChannel
from saga_engine.amqp.driver import Connection
from saga_engine.errors import BrokerError, BrokerUnavailable


class Watchdog:
    """Looks at `queues` over `link` when told to."""

    def __init__(self, link: Link, queues: Sequence[str]) -> None:
        self._link = link
        self._queues = queues
        self._received = -1
        self._stalled = False

    async def look(self, channel: DeliveryChannel) -> str:
        """What is wrong with the consuming of `channel`, in a sentence; empty when nothing is."""
        ready = 0
        connection = await self._link.connection()
        for queue in self._queues:
            try:
                messages, consumers = await self._count(connection, queue)
            except ChannelNotFoundEntity:
                return f"Queue {queue!r} is gone."
            except (ChannelAccessRefused, ChannelLockedResource):
                continue  # This user may consume the queue but not look at it.
            except BrokerUnavailable as error:
                self._link.drop(connection, str(error))
                return str(error)  # or the consuming channel would hear of it seconds later
            if messages and not consumers:
                return f"Queue {queue!r} has no consumer, not even us."
            ready += messages
        await self._restore()
        return self._stall(channel, ready)

    async def _count(self, connection: Connection, queue: str) -> tuple[int, int]:
        channel = await driver.open_channel(connection, Channel, ANSWERING)
        with driver.translated("The broker does not answer", verdicts=True):
            found = await channel.queue_declare(queue, passive=True, timeout=ANSWERING)
        if not await driver.close(channel, ANSWERING):
            raise BrokerUnavailable("The broker does not answer.")
        return found.message_count or 0, found.consumer_count or 0

    async def _restore(self) -> None:
        try:
            await self._link.restore(await self._link.connection())
        except BrokerError as error:
            self._link.report(str(error))  # Not ours to mend; what we consume goes on.

    def _stall(self, channel: DeliveryChannel, ready: int) -> str:
        stalled = ready > 0 and channel.held == 0 and channel.received == self._received
        # Twice, because a message may be ready for a moment on its way to us.
        twice = stalled and self._stalled
        self._received, self._stalled = channel.received, stalled
        return f"{ready} messages are ready and the broker sends us none." if twice else ""
