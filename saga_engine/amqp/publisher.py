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
from saga_engine.amqp.confirm_channel import Batch, ConfirmChannel
from saga_engine.amqp.connection import Link, Phase
from saga_engine.amqp.driver import Connection
from saga_engine.amqp.frames import RefusedMessage, published
from saga_engine.errors import BrokerError
from saga_engine.protocol.message import Message, Published

SMALLEST_FRAME_MAX = 4096
"""What AMQP guarantees; used for looking at a message before there is a connection."""

ASKING = 0.4
"""Share of the time for confirms after which the broker is asked, to know by its end."""

REFUSING = 1.0
"""Seconds for which a channel that refuses a message is used at the least."""


class Publisher:
    """Publishes over one link; any number of callers at once."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._channel: ConfirmChannel | None = None
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()
        self._refused = False
        self._opened_at = 0.0
        self._retired: set[ConfirmChannel] = set()

    @property
    def blocked(self) -> bool:
        """Whether publishing pauses, because the broker said so or is out of reach."""
        return self._link.state.phase is not Phase.CONNECTED

    def refusal(self, message: Message) -> str:
        """Why this message can never be published, in a sentence; empty when it can."""
        try:
            self._frames(message, 1, SMALLEST_FRAME_MAX)
        except RefusedMessage as error:
            return str(error)
        return ""

    async def publish(self, messages: Sequence[Message]) -> list[Published]:
        """
        Publish a batch and wait for its confirms, for broker_confirm_timeout seconds in all.

        Returns:
            One outcome for each message, in their order. While the broker is out of reach or takes
            no publishes, the outcome is UNKNOWN after the timeout.
        """
        outcomes = [Published.UNKNOWN] * len(messages)
        try:
            async with asyncio.timeout(self._link.settings.broker_confirm_timeout):
                await self._publish(messages, outcomes)
        except TimeoutError:
            self._link.report("The broker did not confirm in time; what was sent is unknown.")
        except BrokerError as error:
            self._link.report(str(error))
        return outcomes

    async def _publish(self, messages: Sequence[Message], outcomes: list[Published]) -> None:
        async with self._turn:
            channel = await self._open()
            chosen, payload = self._framed(channel, messages, outcomes)
            if not chosen:
                return
            message_ids = [messages[index].message_id for index in chosen]
            batch = await channel.send(message_ids, payload)
        try:
            await self._confirmed(batch, channel)
        finally:
            unsettled = not batch.done.done() or batch.done.cancelled()
            if unsettled and self._link.state.phase is not Phase.BLOCKED:
                self._discard(channel)
            channel.forget(message_ids)
            self._retire(channel, batch)
            for index, outcome in zip(chosen, batch.outcomes, strict=True):
                outcomes[index] = outcome or Published.UNKNOWN

    async def _confirmed(self, batch: Batch, channel: ConfirmChannel) -> None:
        """Wait for its confirms; while there is none for long, ask whether anybody is there."""
        await asyncio.wait(
            [batch.done], timeout=ASKING * self._link.settings.broker_confirm_timeout
        )
        if not batch.done.done():
            if batch.unheard:  # or it is only slow, and reads the question after all the rest
                self._link.ask(channel.connection)
            await batch.done

    def _retire(self, channel: ConfirmChannel, batch: Batch) -> None:
        """
        Let go of a channel that refuses, and close those on which nothing is in flight any more.

        In a cluster a channel may refuse for ever after its queue has another leader (seen with
        RabbitMQ 3.10), and a new one does not. A queue that is full refuses on that as well.
        """
        refused = Published.NACKED in batch.outcomes
        age = asyncio.get_running_loop().time() - self._opened_at
        if refused and channel is self._channel and age > REFUSING:
            self._channel = None
            self._retired.add(channel)
        if self._link.state.phase is Phase.BLOCKED:
            return  # it reads no close either, and would be taken for gone
        # All of them: of a batch that was given up while the broker blocked, nobody else hears.
        for idle in [each for each in self._retired if each.is_idle]:
            self._retired.remove(idle)  # it must not be closed twice, see `driver.close`
            self._link.close_later(idle)

    def _framed(
        self, channel: ConfirmChannel, messages: Sequence[Message], outcomes: list[Published]
    ) -> tuple[list[int], bytes]:
        chosen: dict[str, int] = {}
        frames: list[bytes] = []
        frame_max = channel.connection.connection_tune.frame_max
        for index, message in enumerate(messages):
            if message.message_id in chosen or channel.in_flight(message.message_id):
                continue  # Its twin is on its way; two returns of one id cannot be told apart.
            try:
                frames.append(self._frames(message, channel.number, frame_max))
            except RefusedMessage:
                outcomes[index] = Published.REFUSED
            else:
                chosen[message.message_id] = index
        return list(chosen.values()), b"".join(frames)

    def _frames(self, message: Message, channel: int, frame_max: int) -> bytes:
        link = self._link
        limit = link.settings.body_bytes
        return published(message, channel, frame_max=frame_max, body_bytes=limit, user_id=link.user)

    async def _open(self) -> ConfirmChannel:
        await self._link.flowing()
        connection = await self._link.connection()
        if self._channel is None or self._connection is not connection:
            if self._refused:
                # A channel often ends because an exchange is gone.
                await self._link.restore(connection)
                self._refused = False
            channel = await self._link.open_channel(connection, ConfirmChannel, confirms=True)
            driver.when_closed(channel, lambda reason: self._closed(channel, reason))
            self._channel, self._connection = channel, connection
            self._opened_at = asyncio.get_running_loop().time()
        return self._channel

    def _closed(self, channel: ConfirmChannel, reason: str) -> None:
        channel.give_up()
        self._retired.discard(channel)
        if channel is self._channel:
            self._channel = None
            self._refused = self._link.state.phase is Phase.CONNECTED
            if self._refused:
                self._link.report(f"The publishing channel was closed: {reason}.")

    def _discard(self, channel: ConfirmChannel) -> None:
        channel.give_up()
        if channel is self._channel:
            self._channel = None
            self._link.close_later(channel)
