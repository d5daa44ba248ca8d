"""
How much of a stream waits: RabbitMQ is asked for single chunks.

The stream protocol of RabbitMQ 3.10 has no request for the end of a stream. A chunk is what one
write of a publisher has stored; it says its first offset, how many messages it has, and its time.
"""

import time

from rstream import OffsetType, schema

from saga_engine.events.consumers.interfaces import SourceLag
from saga_engine.events.feeds.stream_client import StreamClient, broker_errors

_SUBSCRIPTION = 0
_MILLISECONDS = 1000


class StreamProbe:
    """
    Measures streams over a connection of its own.

    Args:
        client: is used for nothing else.
    """

    def __init__(self, client: StreamClient) -> None:
        self._client = client
        self._chunk: schema.Deliver | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the connection was lost."""
        return self._client.ended.done()

    async def begin(self) -> None:
        """Begin to take chunks."""
        await self._client.run_queue_listener_task(_SUBSCRIPTION, self._on_deliver)
        self._client.add_handler(schema.Deliver, self._on_deliver, str(_SUBSCRIPTION))

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def measure(self, stream: str, offset: int | None) -> SourceLag:
        """
        Measure what waits in a stream from an offset on; None: from its beginning.

        Raises:
            BrokerUnavailable: the connection was lost.
            rstream.exceptions.ServerError: the stream is gone, or this user may not read it.
        """
        last = await self._read(stream, OffsetType.LAST)
        end = last.chunk_first_offset + last.num_records if last else 0
        if end <= (offset or 0):
            return SourceLag(0, 0.0)
        kind = OffsetType.FIRST if offset is None else OffsetType.OFFSET
        first = await self._read(stream, kind, offset)
        if first is None:
            return SourceLag(end - (offset or 0), None)
        age = time.time() - first.timestamp / _MILLISECONDS
        return SourceLag(end - max(first.chunk_first_offset, offset or 0), max(0.0, age))

    async def _read(
        self, stream: str, kind: OffsetType, offset: int | None = None
    ) -> schema.Deliver | None:
        """Read the chunk at a place; None: there is none."""
        self._chunk = None
        with broker_errors(f"Stream {stream!r} cannot be measured"):
            await self._client.subscribe(
                stream,
                _SUBSCRIPTION,
                schema.OffsetSpec.from_params(kind, offset),
                initial_credit=1,
            )
            # RabbitMQ sends the chunk before it answers the next request.
            await self._client.unsubscribe(_SUBSCRIPTION)
        return self._chunk

    def _on_deliver(self, chunk: schema.Deliver) -> None:
        self._chunk = chunk
