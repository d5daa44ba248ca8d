"""One partition of a stream while this process consumes it, from an offset that is checked."""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain

from rstream import OffsetType, exceptions, schema

from saga_engine.errors import BrokerUnavailable
from saga_engine.events.consumers.amqp_message import incoming_message
from saga_engine.events.consumers.changed_source import OffsetProblems, may_be_last
from saga_engine.events.consumers.interfaces import IncomingMessage, StartPoint
from saga_engine.events.consumers.stream_chunk import Chunk, ChunkMessage
from saga_engine.events.feeds.stream_client import StreamClient, broker_errors
from saga_engine.settings import Settings

_SUBSCRIPTION = 0
_CREDIT = 2
"""Chunks that RabbitMQ sends ahead; each has the messages of one write, at most about 1 MiB."""


class StreamSubscription:
    """
    A partition while this process consumes it; a Subscription.

    Args:
        client: of its own.
        stream: the name of the partition.
        start: where to begin.
        problems: says why it cannot begin there.
        settings: the limits of headers and bodies.
    """

    def __init__(
        self,
        client: StreamClient,
        stream: str,
        start: StartPoint,
        problems: OffsetProblems,
        settings: Settings,
    ) -> None:
        self._client = client
        self._stream = stream
        self._start: StartPoint | None = start  # None: it is checked
        self._next_offset = start.offset
        self._problems = problems
        self._settings = settings
        self._waiting: Iterator[ChunkMessage] = iter(())  # of the chunk that is being read
        self._chunks: deque[schema.Deliver] = deque()
        self._changed = asyncio.Event()
        self._active_at = asyncio.get_running_loop().time()
        client.ended.add_done_callback(lambda _: self._changed.set())

    async def begin(self) -> None:
        """
        Begin to consume, one message before the next one: it is compared.

        Raises:
            BrokerUnavailable: the stream is gone, or ends before the offset, or this user may not
                read it.
        """
        await self._client.run_queue_listener_task(_SUBSCRIPTION, self._on_deliver)
        self._client.add_handler(schema.Deliver, self._on_deliver, str(_SUBSCRIPTION))
        self._client.add_handler(schema.MetadataUpdate, self._on_metadata, "source")
        offset = self._next_offset
        try:
            with broker_errors(f"Stream {self._stream!r} cannot be read"):
                await self._client.subscribe(
                    self._stream, _SUBSCRIPTION, _place(offset), initial_credit=_CREDIT
                )
                # RabbitMQ sends the first chunks before it answers the next request.
                await self._client.stream_exists(self._stream)
        except exceptions.ServerError as error:
            raise BrokerUnavailable(
                f"Stream {self._stream!r} cannot be read: RabbitMQ says {type(error).__name__}."
                " If it was deleted, start the feed that makes it again; if it is not available,"
                " RabbitMQ may be electing a leader for it."
            ) from error
        if offset and not self._chunks:
            raise BrokerUnavailable(self._problems.beyond_end(offset))

    async def take(self, limit: int, seconds: float) -> Sequence[IncomingMessage]:
        self._raise_if_ended()
        taken = await self._take(limit)
        if not taken:
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
            self._raise_if_ended()
            taken = await self._take(limit)
        if not taken:
            await self._probe_if_idle()
            return []
        self._active_at = asyncio.get_running_loop().time()
        return [incoming_message(each, self._settings) for each in taken]

    def _raise_if_ended(self) -> None:
        if self._client.ended.done():
            raise BrokerUnavailable(
                f"Stream {self._stream!r} is read again: {self._client.ended.result()}."
            )

    async def _take(self, limit: int) -> list[ChunkMessage]:
        """Take messages that have arrived, until they have `max_batch_bytes`."""
        taken: list[ChunkMessage] = []
        left = self._settings.max_batch_bytes
        while len(taken) < limit and left > 0:
            found = next(self._waiting, None)
            if found is not None:
                taken.append(found)
                # A batch that cannot be read may have taken as much work as one that can.
                left = 0 if found.problem else left - len(found.encoded)
            elif self._chunks:
                await self._begin_chunk(self._chunks.popleft())
            else:
                break
        return taken

    async def acknowledge(self, messages: Sequence[IncomingMessage]) -> None:
        """Do nothing: the offset is in the consumer's database."""

    async def _probe_if_idle(self) -> None:
        """Ask for a sign of life when nothing has arrived for the interval of heartbeats."""
        now = asyncio.get_running_loop().time()
        if now - self._active_at < self._settings.broker_heartbeat:
            return
        with broker_errors(f"Stream {self._stream!r} is read again"):
            async with asyncio.timeout(self._settings.broker_heartbeat):
                with suppress(exceptions.ServerError):  # it answers
                    await self._client.stream_exists(self._stream)
        self._active_at = now

    async def _begin_chunk(self, delivered: schema.Deliver) -> None:
        """Let the messages of a chunk be taken, from the next offset on: it may begin before."""
        offset, first = self._next_offset, delivered.chunk_first_offset
        if offset is not None and first > offset:
            raise BrokerUnavailable(self._problems.deleted(offset, first))
        start, self._start = self._start, None
        self._next_offset = end = first + delivered.num_records
        chunk = Chunk(delivered.data, delivered.num_entries, first)
        is_checked = start is not None and start.offset and first < start.offset
        wanted = (offset or 0) - 1 if is_checked else offset or 0
        self._waiting = chunk.messages(wanted, self._settings.max_batch_bytes)
        if start is not None and is_checked:
            self._check_start(start, start.offset or 0, end)
        with broker_errors(f"Stream {self._stream!r} cannot be read on"):
            await self._client.credit(_SUBSCRIPTION, 1)

    def _check_start(self, start: StartPoint, offset: int, end: int) -> None:
        """
        Compare the message before the offset where it begins, and leave it out.

        Raises:
            BrokerUnavailable: it is another one, or there is none.
        """
        if offset > end:
            raise BrokerUnavailable(self._problems.beyond_end(offset))
        found = next(self._waiting, None)
        if found is None:
            return
        message = incoming_message(found, self._settings)
        if found.offset < offset and not may_be_last(start.last_message, message):
            raise BrokerUnavailable(self._problems.other_message(offset))
        if found.end > offset:  # a batch that cannot be read
            self._waiting = chain([found], self._waiting)

    def _on_deliver(self, chunk: schema.Deliver) -> None:
        self._chunks.append(chunk)
        self._changed.set()

    def _on_metadata(self, _update: schema.MetadataUpdate) -> None:
        self._client.end("RabbitMQ has moved or deleted it")


def _place(offset: int | None) -> schema.OffsetSpec:
    """Where to begin to read, so that the message before an offset arrives, too."""
    if offset is None:
        return schema.OffsetSpec.from_params(OffsetType.FIRST, None)
    return schema.OffsetSpec.from_params(OffsetType.OFFSET, max(offset - 1, 0))
