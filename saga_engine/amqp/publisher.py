"""
A publisher: encodes a batch, writes it at once, and awaits all confirms together.

Each message has its own outcome, and a message that cannot be published does not affect the others.
After a timeout the channel is discarded, because its tags may no longer match; messages in flight
are UNKNOWN, and have usually arrived. The connection is tested before the timeout is over, and is
dropped when no channel can be opened or closed on it. While the broker blocks publishers, the
publisher only waits.

No failure of the broker or the network raises an error: the outcomes report it.
"""

import asyncio
from collections.abc import Sequence

from saga_engine.amqp import driver
from saga_engine.amqp.confirm_channel import ConfirmBatch, ConfirmChannel
from saga_engine.amqp.connection import SupervisedConnection
from saga_engine.amqp.driver import AmqpConnection
from saga_engine.amqp.frames import UnpublishableMessage, encode_publish, unpublishable_reason
from saga_engine.errors import BrokerError
from saga_engine.protocol.message import Message, PublishOutcome
from saga_engine.vocabulary import ConnectionState

PROBE_AFTER_SHARE = 0.4
"""Share of the confirm timeout after which the connection is tested."""

MIN_CHANNEL_AGE = 1.0
"""Seconds that a channel is used at least, although the broker refuses messages on it."""


class Publisher:
    """Publishes over one connection, for any number of callers at once."""

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
        """Whether the broker accepts no publishes now, or is unreachable."""
        return self._supervised.status.state is not ConnectionState.CONNECTED

    def unpublishable_reason(self, message: Message) -> str:
        """Return in a sentence why a message cannot be published; empty when it can."""
        settings, username = self._supervised.settings, self._supervised.username
        return unpublishable_reason(
            message, max_body_bytes=settings.max_body_bytes, user_id=username
        )

    async def publish(self, messages: Sequence[Message]) -> list[PublishOutcome]:
        """
        Publish a batch and wait for its confirms, for at most `broker_confirm_timeout` seconds.

        Returns:
            One outcome for each message, in their order. While the broker is unreachable or accepts
            no publishes, the outcome is UNKNOWN after the timeout.
        """
        outcomes = [PublishOutcome.UNKNOWN] * len(messages)
        try:
            async with asyncio.timeout(self._supervised.settings.broker_confirm_timeout):
                await self._publish(messages, outcomes)
        except TimeoutError:
            self._supervised.report_problem(
                "The broker did not confirm in time; whether the messages arrived is unknown."
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
        """Wait for the confirms of a batch; test the connection when none has arrived for long."""
        await asyncio.wait(
            [batch.completed],
            timeout=PROBE_AFTER_SHARE * self._supervised.settings.broker_confirm_timeout,
        )
        if not batch.completed.done():
            # With some confirms the broker is only slow, and would read the test after the batch.
            if batch.has_no_response:
                self._supervised.probe(channel.connection)
            await batch.completed

    def _retire_channels(self, channel: ConfirmChannel, batch: ConfirmBatch) -> None:
        """
        Replace a channel on which a message was refused, and close replaced ones that are idle.

        In a cluster, RabbitMQ 3.10 may refuse every message of a channel after the leader of its
        queue has changed, and accept them on a new channel. A full queue refuses on both.
        """
        nacked = PublishOutcome.NACKED in batch.outcomes
        age = asyncio.get_running_loop().time() - self._channel_opened_at
        if nacked and channel is self._channel and age > MIN_CHANNEL_AGE:
            self._channel = None
            self._retired_channels.add(channel)
        if self._supervised.status.state is ConnectionState.BLOCKED:
            return  # the broker does not read the close, and would count as unreachable
        # All of them: a batch whose caller gave up while the broker blocked has no other cleanup.
        for idle in [each for each in self._retired_channels if each.is_idle]:
            self._retired_channels.remove(
                idle
            )  # a channel must not be closed twice, see `driver.close`
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
                continue  # The same id is in flight; the returns of two would be ambiguous.
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
                # A channel is often closed because an exchange is missing.
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
