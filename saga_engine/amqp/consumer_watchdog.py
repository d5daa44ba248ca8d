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
from saga_engine.amqp.connection import RPC_TIMEOUT, SupervisedConnection
from saga_engine.amqp.delivery_channel import DeliveryChannel
from saga_engine.amqp.driver import AmqpConnection
from saga_engine.errors import BrokerError, BrokerUnavailable


class ConsumerWatchdog:
    """Looks at `queues` over `link` when told to."""

    def __init__(self, connection: SupervisedConnection, queues: Sequence[str]) -> None:
        self._supervised = connection
        self._queues = queues
        self._last_received_count = -1
        self._was_stalled = False

    async def check(self, channel: DeliveryChannel) -> str:
        """What is wrong with the consuming of `channel`, in a sentence; empty when nothing is."""
        ready_count = 0
        connection = await self._supervised.wait_connected()
        for queue in self._queues:
            try:
                messages, consumers = await self._count_messages_and_consumers(connection, queue)
            except ChannelNotFoundEntity:
                return f"Queue {queue!r} is gone."
            except (ChannelAccessRefused, ChannelLockedResource):
                continue  # This user may consume the queue but not look at it.
            except BrokerUnavailable as error:
                self._supervised.drop_connection(connection, str(error))
                return str(error)  # or the consuming channel would hear of it seconds later
            if messages and not consumers:
                return f"Queue {queue!r} has no consumer, not even us."
            ready_count += messages
        await self._redeclare_topology()
        return self._stall_problem(channel, ready_count)

    async def _count_messages_and_consumers(
        self, connection: AmqpConnection, queue: str
    ) -> tuple[int, int]:
        channel = await driver.open_channel(connection, Channel, RPC_TIMEOUT)
        with driver.translate_errors("The broker does not answer", allow_refusals=True):
            declared = await channel.queue_declare(queue, passive=True, timeout=RPC_TIMEOUT)
        if not await driver.close(channel, RPC_TIMEOUT):
            raise BrokerUnavailable("The broker does not answer.")
        return declared.message_count or 0, declared.consumer_count or 0

    async def _redeclare_topology(self) -> None:
        try:
            await self._supervised.redeclare_topology(await self._supervised.wait_connected())
        except BrokerError as error:
            self._supervised.report_problem(
                str(error)
            )  # Not ours to mend; what we consume goes on.

    def _stall_problem(self, channel: DeliveryChannel, ready_count: int) -> str:
        stalled = (
            ready_count > 0
            and channel.unacked_count == 0
            and channel.received_count == self._last_received_count
        )
        # Twice, because a message may be ready for a moment on its way to us.
        stalled_twice = stalled and self._was_stalled
        self._last_received_count, self._was_stalled = channel.received_count, stalled
        return (
            f"{ready_count} messages are ready and the broker sends us none."
            if stalled_twice
            else ""
        )
