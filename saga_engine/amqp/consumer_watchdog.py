"""
Checks over another channel whether the consumer still receives what its queues hold.

RabbitMQ cancels a consumer when its queue is deleted, but not in every case: after a failover or a
lost definition the consumer may be missing without a notice. Consuming starts again when a queue is
gone, when a queue has ready messages and no consumer, and when it has ready messages but the
consumer holds none and receives none.

An empty queue that seems to have no consumer is ignored: when the leader of a quorum queue does not
respond within 250 ms, RabbitMQ reports no messages and no consumers. Starting again because of that
would return every unacknowledged delivery, and a message that is returned too often is
dead-lettered.

RabbitMQ reports neither a deleted exchange nor a deleted binding, and a binding cannot be queried.
Each check therefore declares the whole topology again, which changes nothing when it exists.
"""

from collections.abc import Sequence

from aiormq.channel import Channel
from aiormq.exceptions import ChannelAccessRefused, ChannelLockedResource, ChannelNotFoundEntity

from saga_engine.amqp import driver
from saga_engine.amqp.connection import RPC_TIMEOUT, SupervisedConnection
from saga_engine.amqp.delivery_channel import DeliveryChannel
from saga_engine.amqp.driver import AmqpConnection
from saga_engine.errors import BrokerError, BrokerUnavailable
from saga_engine.vocabulary import ConnectionState


async def count_messages_and_consumers(connection: AmqpConnection, queue: str) -> tuple[int, int]:
    """
    Ask how many messages of a queue are ready, and how many consumers it has.

    Raises:
        BrokerUnavailable: the broker does not respond.
        ChannelNotFoundEntity, ChannelAccessRefused, ChannelLockedResource: it refuses to answer.
    """
    channel = await driver.open_channel(connection, Channel, RPC_TIMEOUT)
    with driver.translate_errors("The broker does not respond", allow_refusals=True):
        declared = await channel.queue_declare(queue, passive=True, timeout=RPC_TIMEOUT)
    if not await driver.close(channel, RPC_TIMEOUT):
        raise BrokerUnavailable("The broker does not respond.")
    return declared.message_count or 0, declared.consumer_count or 0


async def queue_depth(connection: SupervisedConnection, queue: str) -> int | None:
    """Ask how many messages of a queue are ready; None: the broker does not say."""
    if connection.status.state is not ConnectionState.CONNECTED:
        return None
    try:
        ready, _ = await count_messages_and_consumers(await connection.wait_connected(), queue)
    except (BrokerUnavailable, ChannelNotFoundEntity, ChannelAccessRefused):
        return None
    return ready


class ConsumerWatchdog:
    """
    Checks queues over a channel of its own.

    `consumers_changed` is whether the numbers of their consumers differ from the check before.
    """

    def __init__(self, connection: SupervisedConnection) -> None:
        self._supervised = connection
        self._consumer_counts: dict[str, int] = {}
        self.consumers_changed = False
        self._last_received_count = -1
        self._was_stalled = False

    async def check(self, channel: DeliveryChannel, queues: Sequence[str]) -> str:
        """Return the problem of the *channel* that consumes *queues*; empty when there is none."""
        ready_count, consumer_counts = 0, {}
        connection = await self._supervised.wait_connected()
        for queue in queues:
            try:
                messages, consumers = await count_messages_and_consumers(connection, queue)
            except ChannelNotFoundEntity:
                return f"Queue {queue!r} is gone."
            except (ChannelAccessRefused, ChannelLockedResource):
                continue  # This user may consume the queue but not declare it passively.
            except BrokerUnavailable as error:
                self._supervised.drop_connection(connection, str(error))
                return str(
                    error
                )  # without this the consuming channel would learn of it seconds later
            if messages and not consumers:
                return f"Queue {queue!r} has messages and no consumer."
            ready_count += messages
            consumer_counts[queue] = consumers
        self.consumers_changed = consumer_counts != self._consumer_counts
        self._consumer_counts = consumer_counts
        await self._redeclare_topology()
        return self._stall_problem(channel, ready_count)

    async def _redeclare_topology(self) -> None:
        try:
            await self._supervised.redeclare_topology(await self._supervised.wait_connected())
        except BrokerError as error:
            self._supervised.report_problem(
                str(error)
            )  # an operator must fix it; consuming goes on

    def _stall_problem(self, channel: DeliveryChannel, ready_count: int) -> str:
        stalled = (
            ready_count > 0
            and channel.unacked_count == 0
            and channel.received_count == self._last_received_count
        )
        # Twice in a row, because a message is ready for a moment before it is delivered.
        stalled_twice = stalled and self._was_stalled
        self._last_received_count, self._was_stalled = channel.received_count, stalled
        return (
            f"{ready_count} messages are ready and the broker delivers none."
            if stalled_twice
            else ""
        )
