"""
Publishes messages one by one with aio-pika: requests of clients, and redriven dead letters.

A client sends a handful of messages a second and a redrive is bounded by PostgreSQL, so here the
well-kept library is enough. The worker and the participants publish batches with `publisher`, at a
fifth of the processor time (docs/internals.md). Both give the same outcomes; tests/amqp checks it.

It never raises for an error of the broker or the network: the outcomes report it.
"""

import asyncio
from collections.abc import Sequence

import aio_pika
from aio_pika.abc import UnderlayConnection
from aio_pika.exceptions import DeliveryError, PublishError
from aio_pika.tools import OneShotCallback
from aiormq.channel import Channel

from saga_engine.amqp import driver
from saga_engine.amqp.connection import RPC_TIMEOUT, SupervisedConnection
from saga_engine.amqp.driver import AmqpConnection
from saga_engine.amqp.frames import unpublishable_reason
from saga_engine.errors import BrokerError
from saga_engine.protocol.message import Message, PublishOutcome
from saga_engine.vocabulary import ConnectionState


class SinglePublisher:
    """Publishes over one connection; any number of callers may use it concurrently."""

    def __init__(self, connection: SupervisedConnection) -> None:
        self._supervised = connection
        self._channel: aio_pika.Channel | None = None
        self._connection: AmqpConnection | None = None
        self._open_lock = asyncio.Lock()
        self._must_redeclare = False

    @property
    def blocked(self) -> bool:
        """Whether the broker accepts no publishes now, or is unreachable."""
        return self._supervised.status.state is not ConnectionState.CONNECTED

    def unpublishable_reason(self, message: Message) -> str:
        """Why this message can never be published, in a sentence; empty when it can."""
        settings, username = self._supervised.settings, self._supervised.username
        return unpublishable_reason(
            message, max_body_bytes=settings.max_body_bytes, user_id=username
        )

    async def publish(self, messages: Sequence[Message]) -> list[PublishOutcome]:
        """
        Publish messages and wait for their confirms, for broker_confirm_timeout seconds in all.

        Returns:
            One outcome for each message, in their order. While the broker is unreachable or accepts
            no publishes, the outcome is UNKNOWN after the timeout.
        """
        outcomes = [PublishOutcome.UNKNOWN] * len(messages)
        channel = self._channel
        try:
            async with (
                asyncio.timeout(self._supervised.settings.broker_confirm_timeout),
                asyncio.TaskGroup() as tasks,
            ):
                for index, message in enumerate(messages):
                    tasks.create_task(self._publish(message, outcomes, index))
        except TimeoutError:
            await self._discard_channel(channel or self._channel)
            self._supervised.report_problem(
                "The broker did not confirm in time; the outcome of the messages is unknown."
            )
        return outcomes

    async def _publish(self, message: Message, outcomes: list[PublishOutcome], index: int) -> None:
        if self.unpublishable_reason(message):
            outcomes[index] = PublishOutcome.UNPUBLISHABLE
            return
        try:
            channel = await self._usable_channel()
            with driver.translate_errors("A message could not be published"):
                outcomes[index] = await _publish_on(channel, message, self._supervised.username)
        except BrokerError as error:
            self._must_redeclare = self._supervised.status.state is ConnectionState.CONNECTED
            self._supervised.report_problem(str(error))

    async def _usable_channel(self) -> aio_pika.Channel:
        await self._supervised.wait_publishable()
        connection = await self._supervised.wait_connected()
        async with self._open_lock:
            channel = self._channel
            if channel is None or channel.is_closed or self._connection is not connection:
                if self._must_redeclare:
                    # A channel often ends because an exchange was deleted.
                    await self._supervised.redeclare_topology(connection)
                    self._must_redeclare = False
                channel = await _open_channel(connection)
                self._channel, self._connection = channel, connection
        return channel

    async def _discard_channel(self, channel: aio_pika.Channel | None) -> None:
        """Close a channel whose confirms are late; probe the connection, which may be dead."""
        if channel is None or channel is not self._channel or channel.is_closed:
            return
        if self._supervised.status.state is ConnectionState.BLOCKED:
            return  # a broker that reads nothing answers no close either
        self._channel = None
        underlay = await channel.get_underlay_channel()
        assert isinstance(underlay, Channel)
        self._supervised.close_in_background(underlay)


class _AioPikaConnection(aio_pika.Connection):
    """A connection that `SupervisedConnection` has opened and supervises, as aio-pika sees it."""

    def __init__(self, connection: AmqpConnection) -> None:
        super().__init__(connection.url)
        self.transport = UnderlayConnection(
            connection=connection, close_callback=OneShotCallback(self._on_connection_close)
        )


async def _open_channel(connection: AmqpConnection) -> aio_pika.Channel:
    """
    Open a channel of aio-pika.

    Raises:
        BrokerUnavailable: it was not opened.
    """
    with driver.translate_errors("A channel could not be opened"):
        channel = aio_pika.Channel(
            _AioPikaConnection(connection), publisher_confirms=True, on_return_raises=True
        )
        async with asyncio.timeout(RPC_TIMEOUT):
            await channel.initialize()
    return channel


async def _publish_on(channel: aio_pika.Channel, message: Message, user_id: str) -> PublishOutcome:
    exchange = (
        await channel.get_exchange(message.exchange, ensure=False)
        if message.exchange
        else channel.default_exchange
    )
    try:
        await exchange.publish(
            aio_pika.Message(
                message.body,
                headers=dict(message.headers),
                content_type="application/json",
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                correlation_id=message.correlation_id or None,
                reply_to=message.reply_to or None,
                message_id=message.message_id,
                timestamp=message.timestamp,
                type=message.type or None,
                user_id=user_id or None,
                app_id="saga-engine",
            ),
            message.routing_key,
            mandatory=message.mandatory,
        )
    except PublishError:
        return PublishOutcome.UNROUTABLE
    except DeliveryError:
        return PublishOutcome.NACKED
    return PublishOutcome.CONFIRMED
