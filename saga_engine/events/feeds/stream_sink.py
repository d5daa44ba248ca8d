"""
A stream of RabbitMQ as a sink: an event is a message whose publishing id is its position.

RabbitMQ drops the ids that a partition has already, so an event that is published again is stored
once. That holds for one producer name: see `producer_name`.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack

from saga_engine.errors import BrokerError, ConfigurationError, StoreError
from saga_engine.events.event_store import positions
from saga_engine.events.event_store.recorded import Recorded
from saga_engine.events.feeds.confirmed_offsets import NO_OFFSETS
from saga_engine.events.feeds.event_encoder import EncodedData, EventEncoder, encoding_problem
from saga_engine.events.feeds.feed import StreamOptions, Unroutable
from saga_engine.events.feeds.producer_name import ProducerName
from saga_engine.events.feeds.stream_address import stream_addresses
from saga_engine.events.feeds.stream_connection import StreamConnection
from saga_engine.events.feeds.stream_message import encode_stream_message, partition_of
from saga_engine.events.feeds.stream_publishers import StreamPublishers
from saga_engine.events.feeds.stream_topology import StreamTopology
from saga_engine.events.readers.owned_loop import NotOwner
from saga_engine.lifecycle import AsyncResource
from saga_engine.protocol.message import PublishOutcome
from saga_engine.settings import Settings
from saga_engine.store.database import Database


class StreamSink(AsyncResource):
    """
    Publishes the events of one feed to its stream; `async with` opens and closes it.

    Args:
        options: as the feed declares them.
        encoder: of the events' data.
        name: of its producer.
        database: of the events.
        settings: where RabbitMQ is, and how long it may take.

    Raises:
        ConfigurationError: on entering: RabbitMQ refuses the user, or has no URL.
        BrokerUnavailable: on entering: it is out of reach by the stream protocol.
    """

    confirmed_offsets = NO_OFFSETS
    one_at_a_time = False
    """What a partition has of a producer has no gap."""
    unroutable = Unroutable.STOP
    """A stream takes every event."""

    def __init__(
        self,
        options: StreamOptions,
        encoder: EventEncoder,
        name: ProducerName,
        database: Database,
        settings: Settings,
    ) -> None:
        self._options = options
        self._encoder = encoder
        self._name = name
        self._database = database
        self._settings = settings
        self._connection = StreamConnection(stream_addresses(settings), options.stream, settings)
        self._topology = StreamTopology(name.key, options, settings)
        self._current_name = ""
        self._publishers: StreamPublishers | None = None
        self._problem: str | None = None
        self._position = 0
        self._last_drawn_at_resume = 0  # later positions may be drawn a second time
        self._is_compared = False  # what RabbitMQ has of the producer, with the log

    async def _open(self, resources: AsyncExitStack) -> None:
        await resources.enter_async_context(self._connection)

    @property
    def problem(self) -> str | None:
        """Why nothing can be published now; None: nothing is wrong."""
        return self._connection.problem or self._problem

    @property
    def differences(self) -> tuple[str, ...]:
        """How the stream differs from what the feed declares."""
        return self._topology.differences

    async def resume(self, position: int) -> int:
        """
        Begin after a position with the producer of now, and check the stream.

        That does not last as long as a lease. Without an answer the stream is checked again before
        the first event.

        Returns:
            The position. What a partition has beyond it is known when it is published.

        Raises:
            NotOwner: the feed has another position by now, or its producer another name.
            StoreError: the database is unavailable.
        """
        async with self._database.transaction() as tx:
            name, stored = await self._name.read(tx)
            self._last_drawn_at_resume = await positions.last_drawn(tx)
        if stored != position:
            raise NotOwner
        if self._publishers:
            self._publishers.client.end("its publishers begin again")
        self._current_name, self._position = name, position
        self._topology.forget()
        self._publishers = None
        self._is_compared = False
        seconds = min(self._settings.broker_confirm_timeout, self._settings.projection_lease / 3)
        await self._attempt(self._prepare(compares=True), seconds)
        return position

    async def publish(self, events: Sequence[Recorded]) -> list[PublishOutcome]:
        """
        Publish events and wait for their confirms, for `broker_confirm_timeout` at most.

        Raises:
            NotOwner: the database is another one than at `resume`, or the feed was rewound.
        """
        outcomes = [PublishOutcome.UNKNOWN] * len(events)
        try:
            async with self._database.transaction() as tx:
                name, _ = await self._name.read(tx)
            encoded = await self._encoder.encode(events)
        except StoreError:
            return outcomes
        if name != self._current_name:
            raise NotOwner
        seconds = self._settings.broker_confirm_timeout
        await self._attempt(self._publish(events, encoded, outcomes), seconds)
        return outcomes

    def explain(self, event: Recorded, _outcome: PublishOutcome) -> str:
        """Return why an event cannot be published, and what an operator can do about it."""
        if self._topology.refusal:
            return self._topology.refusal
        problem = encoding_problem(self._encoder, event, self._name.key.retry_command)
        if problem:
            return problem
        size = len(self._message(event, self._encoder.encode_one(event)))
        return (
            f"The message has {size:,} bytes, which is more than a frame of RabbitMQ's stream"
            " protocol holds. Raise stream.frame_max in rabbitmq.conf, restart RabbitMQ, then run"
            f" `{self._name.key.retry_command}`; or discard the event."
        )

    async def _attempt(self, work: Coroutine[object, object, object], seconds: float) -> None:
        """Do something with RabbitMQ; `problem` says why it failed."""
        try:
            async with asyncio.timeout(seconds):
                await work
        except TimeoutError:
            self._problem = "RabbitMQ did not answer in time."
        except (BrokerError, ConfigurationError, StoreError) as error:
            self._problem = str(error)
        else:
            self._problem = None

    async def _publish(
        self,
        events: Sequence[Recorded],
        encoded: Sequence[EncodedData | None],
        outcomes: list[PublishOutcome],
    ) -> None:
        """Publish the events before the first that can never be published."""
        # Without events it is a look at the connection, also by a process that has no lease.
        publishers = await self._prepare(compares=bool(events))
        if publishers is None:
            outcomes[:1] = [PublishOutcome.UNPUBLISHABLE] * len(events[:1])
            return
        partitions = publishers.partitions
        numbers = [partition_of(each.stream, len(partitions)) for each in events]
        messages: dict[int, list[tuple[int, bytes]]] = {}
        for index, event in enumerate(events):
            if event.position <= partitions[numbers[index]].sequence:
                continue  # it was published before
            data = encoded[index]
            message = None if data is None else self._message(event, data)
            if message is None or len(message) > publishers.max_message_bytes:
                outcomes[index] = PublishOutcome.UNPUBLISHABLE
                del numbers[index:]
                break
            messages.setdefault(numbers[index], []).append((event.position, message))
        try:
            await publishers.publish(messages)
        finally:
            for index, number in enumerate(numbers):
                if events[index].position <= partitions[number].sequence:
                    outcomes[index] = PublishOutcome.CONFIRMED
                    self._position = max(self._position, events[index].position)

    async def _prepare(self, *, compares: bool) -> StreamPublishers | None:
        """
        Return the publishers of the open connection; None: the feed has to stop.

        Args:
            compares: whether what RabbitMQ has of the producer is compared with the log, which only
                the owner of the lease does: what another process has published is not its own.
        """
        client = await self._connection.wait_connected()
        if self._publishers is None or self._publishers.client is not client:
            self._publishers = None
            await self._topology.check(client, self._position)
            if self._topology.refusal:
                return None
            streams = self._topology.streams
            self._publishers = await StreamPublishers.declare(client, streams, self._current_name)
        if compares and not self._is_compared:
            await self._compare(self._publishers)
            self._is_compared = True
        return self._publishers

    async def _compare(self, publishers: StreamPublishers) -> None:
        """
        Take another name if RabbitMQ had an id of this one before it was drawn as a position.

        Raises:
            NotOwner: the name has changed.
            StoreError: the database is unavailable.
        """
        highest = max(each.sequence for each in publishers.partitions)
        if highest <= self._last_drawn_at_resume:
            return
        try:
            async with self._database.transaction() as tx:
                name, _ = await self._name.read(tx)
                if name == self._current_name:
                    await self._name.change(tx)
        finally:
            publishers.client.end("its publishers begin again")
        raise NotOwner

    def _message(self, event: Recorded, data: EncodedData) -> bytes:
        return encode_stream_message(event, data, self._name.log_id)
