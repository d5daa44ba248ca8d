"""
A stream of RabbitMQ, or the partitions of a super stream, as the source of a consumer.

It is read by the stream protocol from the offset that the consumer's own database has: RabbitMQ
stores none. A message that is not AMQP 1.0 is kept as unreadable, and the next one is read; by AMQP
0-9-1 it would end the connection.
"""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rstream import exceptions

from saga_engine.errors import BrokerUnavailable, ConfigurationError
from saga_engine.events.consumers.changed_source import OffsetProblems
from saga_engine.events.consumers.interfaces import SourceLag, StartPoint
from saga_engine.events.consumers.source_options import StreamSourceOptions
from saga_engine.events.consumers.stream_probe import StreamProbe
from saga_engine.events.consumers.stream_subscription import StreamSubscription
from saga_engine.events.feeds.stream_address import stream_addresses
from saga_engine.events.feeds.stream_client import StreamClient, broker_errors, open_client
from saga_engine.settings import Settings
from saga_engine.vocabulary import ConnectionRole


class StreamSource:
    """
    One stream, or all partitions of a super stream.

    Args:
        consumer: the name of the consumer, for its command in a sentence.
        options: the name of the stream.
        settings: where RabbitMQ is.
    """

    def __init__(self, consumer: str, options: StreamSourceOptions, settings: Settings) -> None:
        self._consumer = consumer
        self._name = options.stream
        self._settings = settings
        self._addresses = deque(stream_addresses(settings))
        self._streams: tuple[str, ...] = ()
        self._probe: StreamProbe | None = None

    async def close(self) -> None:
        """Close the connection that measures."""
        probe, self._probe = self._probe, None
        if probe is not None:
            await probe.close()

    @property
    def description(self) -> str:
        return f"stream {self._name}"

    async def partition_count(self) -> int:
        client = await self._connect()
        try:
            found = await _find_streams(client, self._name)
        finally:
            await client.close()
        if len(found) >= len(self._streams):  # one that is gone is named when it is read
            self._streams = found
        return len(self._streams)

    async def measure(self, partition: int, offset: int | None) -> SourceLag | None:
        if partition >= len(self._streams):
            return None
        try:
            probe = await self._open_probe()
            return await probe.measure(self._streams[partition], offset)
        except (BrokerUnavailable, ConfigurationError, exceptions.ServerError):
            await self.close()  # it is opened again
            return None

    async def _open_probe(self) -> StreamProbe:
        if self._probe is not None and self._probe.has_ended:
            await self.close()
        if self._probe is None:
            self._probe = StreamProbe(await self._connect())
            await self._probe.begin()
        return self._probe

    @asynccontextmanager
    async def subscribe(
        self, partition: int, start: StartPoint
    ) -> AsyncIterator[StreamSubscription]:
        client = await self._connect()
        try:
            stream = self._streams[partition]
            problems = OffsetProblems.of(f"Stream {stream!r}", self._consumer, partition)
            subscription = StreamSubscription(client, stream, start, problems, self._settings)
            await subscription.begin()
            yield subscription
        except BaseException:
            self._addresses.rotate(-1)  # another node may have the stream
            raise
        finally:
            await client.close()

    async def _connect(self) -> StreamClient:
        role = ConnectionRole.CONSUME
        for _ in range(len(self._addresses) - 1):
            try:
                return await open_client(self._addresses[0], self._settings, role)
            except BrokerUnavailable:
                self._addresses.rotate(-1)
        return await open_client(self._addresses[0], self._settings, role)


async def _find_streams(client: StreamClient, name: str) -> tuple[str, ...]:
    """
    Find the stream of a name, or its partitions `name-0`, `name-1` and so on.

    Raises:
        BrokerUnavailable: there is none, or RabbitMQ does not answer.
    """
    with broker_errors(f"RabbitMQ was asked for stream {name!r}"):
        try:
            partitions: list[str] = []
            while await client.stream_exists(f"{name}-{len(partitions)}"):
                partitions.append(f"{name}-{len(partitions)}")
            if partitions or not await client.stream_exists(name):
                found = tuple(partitions)
            else:
                found = (name,)
        except exceptions.ServerError as error:
            raise BrokerUnavailable(
                f"Stream {name!r} is not available: {type(error).__name__}."
            ) from error
    if not found:
        raise BrokerUnavailable(
            f"There is no stream {name!r}, and no partition {name}-0. Start the feed that makes it,"
            " or correct the name."
        )
    return found
