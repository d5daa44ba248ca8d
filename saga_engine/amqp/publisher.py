"""
Publishing a batch: every message framed, one write, all confirms awaited together.

Rule: an outcome belongs to its own message, and a message that cannot be published does not touch
its neighbours. After a timeout the channel is thrown away, because whether it still counts right is
not known; what was in flight is UNKNOWN, which usually means that it arrived. A connection on which
no channel can be closed or opened is thrown away with it; whether that is so is asked before the
time is over. A broker that says that it takes no publishes is only waited for.

It never raises for what the broker or the network does: the outcomes say it.
"""

import asyncio
from collections.abc import Sequence

from saga_engine.amqp import driver
from saga_engine.amqp.confirm_channel import ConfirmBatch, ConfirmChannel
from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.amqp.driver import AmqpConnection
from saga_engine.amqp.frames import UnpublishableMessage, encode_publish
from saga_engine.errors import BrokerError
from saga_engine.protocol.message import Message, PublishOutcome
from saga_engine.vocabulary import ConnectionState

MIN_FRAME_MAX = 4096
"""What AMQP guarantees; used for looking at a message before there is a connection."""

PROBE_AFTER_SHARE = 0.4
"""Share of the time for confirms after which the broker is asked, to know by its end."""

MIN_CHANNEL_AGE = 1.0
"""Seconds for which a channel that refuses a message is used at the least."""


class Publisher:
    """Publishes over one link; any number of callers at once."""

    def __init__(self, connection: SupervisedConnection) -> None:
        self._supervised = connection
        self._channel: ConfirmChannel | None = None
        self._connection: AmqpConnection | None = None
        self._send_lock = asyncio.Lock()
        self._must_redeclare = False
        self._channel_opened_at = 0.0
        self._retired_channels: set[ConfirmChannel] = set()

    @property
    def blocked(self) -> bool:
        """Whether publishing pauses, because the broker said so or is out of reach."""
        return self._supervised.status.state is not ConnectionState.CONNECTED

    def unpublishable_reason(self, message: Message) -> str:
        """Why this message can never be published, in a sentence; empty when it can."""
        try:
            self._encode_message(message, 1, MIN_FRAME_MAX)
        except UnpublishableMessage as error:
            return str(error)
        return ""

    async def publish(self, messages: Sequence[Message]) -> list[PublishOutcome]:
        """
        Publish a batch and wait for its confirms, for broker_confirm_timeout seconds in all.

        Returns:
            One outcome for each message, in their order. While the broker is out of reach or takes
            no publishes, the outcome is UNKNOWN after the timeout.
        """
        outcomes = [PublishOutcome.UNKNOWN] * len(messages)
        try:
            async with asyncio.timeout(self._supervised.settings.broker_confirm_timeout):
                await self._publish(messages, outcomes)
        except TimeoutError:
            self._supervised.report_problem(
                "The broker did not confirm in time; what was sent is unknown."
            )
        except BrokerError as error:
            self._supervised.report_problem(str(error))
        return outcomes

    async def _publish(self, messages: Sequence[Message], outcomes: list[PublishOutcome]) -> None:
        async with self._send_lock:
            channel = await self._usable_channel()
            sent_indexes, payload = self._encode_batch(channel, messages, outcomes)
            if not sent_indexes:
                return
            message_ids = [messages[index].message_id for index in sent_indexes]
            batch = await channel.send_batch(message_ids, payload)
        try:
            await self._wait_for_confirms(batch, channel)
        finally:
            incomplete = not batch.completed.done() or batch.completed.cancelled()
            if incomplete and self._supervised.status.state is not ConnectionState.BLOCKED:
                self._discard_channel(channel)
            channel.forget_messages(message_ids)
            self._retire_channels(channel, batch)
            for index, outcome in zip(sent_indexes, batch.outcomes, strict=True):
                outcomes[index] = outcome or PublishOutcome.UNKNOWN

    async def _wait_for_confirms(self, batch: ConfirmBatch, channel: ConfirmChannel) -> None:
        """Wait for its confirms; while there is none for long, ask whether anybody is there."""
        await asyncio.wait(
            [batch.completed],
            timeout=PROBE_AFTER_SHARE * self._supervised.settings.broker_confirm_timeout,
        )
        if not batch.completed.done():
            if (
                batch.has_no_response
            ):  # or it is only slow, and reads the question after all the rest
                self._supervised.probe(channel.connection)
            await batch.completed

    def _retire_channels(self, channel: ConfirmChannel, batch: ConfirmBatch) -> None:
        """
        Let go of a channel that refuses, and close those on which nothing is in flight any more.

        In a cluster a channel may refuse for ever after its queue has another leader (seen with
        RabbitMQ 3.10), and a new one does not. A queue that is full refuses on that as well.
        """
        nacked = PublishOutcome.NACKED in batch.outcomes
        age = asyncio.get_running_loop().time() - self._channel_opened_at
        if nacked and channel is self._channel and age > MIN_CHANNEL_AGE:
            self._channel = None
            self._retired_channels.add(channel)
        if self._supervised.status.state is ConnectionState.BLOCKED:
            return  # it reads no close either, and would be taken for gone
        # All of them: of a batch that was given up while the broker blocked, nobody else hears.
        for idle in [each for each in self._retired_channels if each.is_idle]:
            self._retired_channels.remove(idle)  # it must not be closed twice, see `driver.close`
            self._supervised.close_in_background(idle)

    def _encode_batch(
        self, channel: ConfirmChannel, messages: Sequence[Message], outcomes: list[PublishOutcome]
    ) -> tuple[list[int], bytes]:
        index_by_message_id: dict[str, int] = {}
        frames: list[bytes] = []
        frame_max = channel.connection.connection_tune.frame_max
        for index, message in enumerate(messages):
            if message.message_id in index_by_message_id or channel.is_in_flight(
                message.message_id
            ):
                continue  # Its twin is on its way; two returns of one id cannot be told apart.
            try:
                frames.append(self._encode_message(message, channel.number, frame_max))
            except UnpublishableMessage:
                outcomes[index] = PublishOutcome.UNPUBLISHABLE
            else:
                index_by_message_id[message.message_id] = index
        return list(index_by_message_id.values()), b"".join(frames)

    def _encode_message(self, message: Message, channel: int, frame_max: int) -> bytes:
        connection = self._supervised
        max_body_bytes = connection.settings.max_body_bytes
        return encode_publish(
            message,
            channel,
            frame_max=frame_max,
            max_body_bytes=max_body_bytes,
            user_id=connection.username,
        )

    async def _usable_channel(self) -> ConfirmChannel:
        await self._supervised.wait_publishable()
        connection = await self._supervised.wait_connected()
        if self._channel is None or self._connection is not connection:
            if self._must_redeclare:
                # A channel often ends because an exchange is gone.
                await self._supervised.redeclare_topology(connection)
                self._must_redeclare = False
            channel = await self._supervised.open_channel(
                connection, ConfirmChannel, confirm_mode=True
            )
            driver.on_closed(channel, lambda reason: self._channel_closed(channel, reason))
            self._channel, self._connection = channel, connection
            self._channel_opened_at = asyncio.get_running_loop().time()
        return self._channel

    def _channel_closed(self, channel: ConfirmChannel, reason: str) -> None:
        channel.resolve_all_as_unknown()
        self._retired_channels.discard(channel)
        if channel is self._channel:
            self._channel = None
            self._must_redeclare = self._supervised.status.state is ConnectionState.CONNECTED
            if self._must_redeclare:
                self._supervised.report_problem(f"The publishing channel was closed: {reason}.")

    def _discard_channel(self, channel: ConfirmChannel) -> None:
        channel.resolve_all_as_unknown()
        if channel is self._channel:
            self._channel = None
            self._supervised.close_in_background(channel)
