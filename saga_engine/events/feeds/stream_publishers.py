"""
The publishers of one connection: one for each partition of a stream, each with its own confirms.

Of each partition one frame at a time is in flight. RabbitMQ drops a message whose id is not above
the last one of its publisher, so an event that is published again must find none after it.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence

from rstream import exceptions, schema

from saga_engine.errors import BrokerUnavailable
from saga_engine.events.feeds.stream_client import StreamClient, broker_errors

FRAME_BYTES = 1_048_576
"""The most that is sent in one frame, if RabbitMQ allows as much; its default limit."""

_FRAME_OVERHEAD = 64
_MESSAGE_OVERHEAD = 12
_MISSING = (exceptions.StreamDoesNotExist.code, exceptions.StreamNotAvailable.code)


class PartitionPublisher:
    """
    Publishes to one partition.

    Args:
        stream: the name of the partition.
        sequence: the highest id that the partition has of this producer; 0: none.
    """

    def __init__(self, stream: str, sequence: int) -> None:
        self.stream = stream
        self.sequence = sequence
        self._waiting: deque[schema.Message] = deque()
        self._in_flight: deque[int] = deque()
        self._confirmed: set[int] = set()

    @property
    def is_idle(self) -> bool:
        """Whether everything is confirmed."""
        return not self._in_flight and not self._waiting

    def add(self, publishing_id: int, data: bytes) -> None:
        """Add a message; the ids rise."""
        self._waiting.append(schema.Message(publishing_id, None, data))

    def forget(self) -> None:
        """Forget the messages that are not confirmed."""
        self._waiting.clear()
        self._in_flight.clear()
        self._confirmed.clear()

    def take_frame(self, max_bytes: int) -> list[schema.Message]:
        """Take the messages of the next frame; none while one is in flight."""
        if self._in_flight:
            return []
        count = size = 0
        for message in self._waiting:
            size += len(message.data) + _MESSAGE_OVERHEAD
            if count and size > max_bytes:
                break
            count += 1
        frame = [self._waiting.popleft() for _ in range(count)]
        self._in_flight.extend(each.publishing_id for each in frame)
        return frame

    def confirm(self, publishing_ids: Sequence[int]) -> None:
        """Move `sequence` up to the last id before which all are confirmed."""
        self._confirmed.update(publishing_ids)
        while self._in_flight and self._in_flight[0] in self._confirmed:
            self.sequence = self._in_flight.popleft()
            self._confirmed.discard(self.sequence)


class StreamPublishers:
    """
    The publishers of all partitions on one connection; `declare` makes them.

    Args:
        client: an open connection.
        partitions: by their number.
    """

    def __init__(self, client: StreamClient, partitions: Sequence[PartitionPublisher]) -> None:
        self.client = client
        self.partitions = partitions
        self._progress = asyncio.Event()
        client.ended.add_done_callback(lambda _: self._progress.set())
        client.add_handler(schema.PublishConfirm, self._on_confirm, "publishers")
        client.add_handler(schema.PublishError, self._on_error, "publishers")
        client.add_handler(schema.MetadataUpdate, self._on_metadata, "publishers")

    @classmethod
    async def declare(
        cls, client: StreamClient, streams: Sequence[str], name: str
    ) -> "StreamPublishers":
        """
        Declare a publisher for each partition, and ask each what it has of this producer.

        Args:
            client: an open connection without publishers.
            streams: the partitions.
            name: of the producer.

        Raises:
            BrokerUnavailable: the connection was lost, or this user may not publish. The connection
                is not used again.
        """
        partitions: list[PartitionPublisher] = []
        try:
            for number, stream in enumerate(streams):
                sequence = await _declare(client, number, stream, name)
                partitions.append(PartitionPublisher(stream, sequence))
        finally:
            if len(partitions) < len(streams):
                client.end("its publishers could not be declared")
        return cls(client, partitions)

    @property
    def max_message_bytes(self) -> int:
        """The largest message that RabbitMQ takes."""
        return (self.client.frame_max or FRAME_BYTES) - _FRAME_OVERHEAD - _MESSAGE_OVERHEAD

    async def publish(self, messages: Mapping[int, Sequence[tuple[int, bytes]]]) -> None:
        """
        Publish messages, and wait until all are confirmed.

        Args:
            messages: ids and data, by partition; the ids are above its `sequence` and rise.

        Raises:
            BrokerUnavailable: the connection was lost, or a message was refused. `sequence` of each
                partition says what was confirmed.
        """
        busy = [self.partitions[number] for number in messages]
        for number, listed in messages.items():
            for publishing_id, data in listed:
                self.partitions[number].add(publishing_id, data)
        try:
            with broker_errors("The connection to RabbitMQ failed"):
                while not all(each.is_idle for each in busy):
                    self._progress.clear()
                    await self._send(messages)
                    await self._wait_for_progress()
        finally:
            if not all(each.is_idle for each in busy):
                self.client.end("messages were not confirmed in time")
            for each in busy:
                each.forget()

    async def _send(self, numbers: Mapping[int, object]) -> None:
        limit = min(FRAME_BYTES, self.client.frame_max or FRAME_BYTES) - _FRAME_OVERHEAD
        for number in numbers:
            if frame := self.partitions[number].take_frame(limit):
                await self.client.send_publish_frame(schema.Publish(number, frame))

    async def _wait_for_progress(self) -> None:
        ended = self.client.ended
        if not ended.done():
            await self._progress.wait()
        if ended.done():
            raise BrokerUnavailable(f"The connection to RabbitMQ was lost: {ended.result()}.")

    def _on_confirm(self, frame: schema.PublishConfirm) -> None:
        self.partitions[frame.publisher_id].confirm(frame.publishing_ids)
        self._progress.set()

    def _on_error(self, frame: schema.PublishError) -> None:
        stream = self.partitions[frame.publisher_id].stream
        error = exceptions.ServerError.from_code(frame.errors[0].response_code)
        self.client.end(f"stream {stream!r} refused a message: {error.__name__}")

    def _on_metadata(self, frame: schema.MetadataUpdate) -> None:
        self.client.end(f"stream {frame.metadata_info.stream!r} was moved or deleted")


async def _declare(client: StreamClient, number: int, stream: str, name: str) -> int:
    """Declare a publisher, and return the highest id that its partition has."""
    with broker_errors(f"Stream {stream!r} cannot be published to"):
        try:
            await client.declare_publisher(stream, name, number)
            return await client.query_publisher_sequence(stream, name)
        except exceptions.ServerError as error:
            raise BrokerUnavailable(_refusal(stream, error)) from error


def _refusal(stream: str, error: exceptions.ServerError) -> str:
    if isinstance(error, exceptions.AccessRefused):
        return (
            f"This user may not publish to stream {stream!r}. Grant the permissions that"
            " docs/security.md lists."
        )
    if error.code in _MISSING:
        return (
            f"Stream {stream!r} is not available: it was deleted, or RabbitMQ has no leader for it."
        )
    return f"RabbitMQ does not let the feed publish to stream {stream!r}: {type(error).__name__}."
