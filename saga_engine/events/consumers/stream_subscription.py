"""One partition of a stream while this process consumes it, from an offset that is checked."""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from rstream import OffsetType, exceptions, schema

from saga_engine.errors import BrokerUnavailable
from saga_engine.events.consumers.amqp_message import incoming_message
from saga_engine.events.consumers.changed_source import OffsetProblems, fingerprint
from saga_engine.events.consumers.interfaces import IncomingMessage, StartPoint
from saga_engine.events.consumers.stream_chunk import ChunkMessage, read_chunk
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
        self._waiting: deque[ChunkMessage] = deque()
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
        if not self._waiting and not self._chunks:
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
        if self._client.ended.done():
            raise BrokerUnavailable(
                f"Stream {self._stream!r} is read again: {self._client.ended.result()}."
            )
        if not self._chunks and not self._waiting:
            await self._probe_if_idle()
            return []
        self._active_at = asyncio.get_running_loop().time()
        await self._fill(limit)
        number = min(limit, len(self._waiting))
        taken = [self._waiting.popleft() for _ in range(number)]
        return [incoming_message(each, self._settings) for each in taken]

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

    async def _fill(self, limit: int) -> None:
        while self._chunks and len(self._waiting) < limit:
            self._add(self._chunks.popleft())
            with broker_errors(f"Stream {self._stream!r} cannot be read on"):
                await self._client.credit(_SUBSCRIPTION, 1)

    def _add(self, chunk: schema.Deliver) -> None:
        """Take the messages of a chunk from the next offset on: it may begin before that."""
        offset, first = self._next_offset, chunk.chunk_first_offset
        if offset is not None and first > offset:
            raise BrokerUnavailable(self._problems.deleted(offset, first))
        limit = self._settings.max_batch_bytes
        messages = read_chunk(chunk.data, chunk.num_entries, first, limit)
        self._check_start(first, chunk.num_records, messages)
        self._waiting.extend(each for each in messages if offset is None or each.offset >= offset)
        self._next_offset = first + chunk.num_records

    def _check_start(self, first: int, records: int, messages: Sequence[ChunkMessage]) -> None:
        """
        Compare the message before the offset where it begins; of the first chunk only.

        Raises:
            BrokerUnavailable: it is another one, or there is none.
        """
        start, self._start = self._start, None
        if start is None or not start.offset or first >= start.offset:
            return  # retention may have deleted the message before
        last = start.offset - 1
        if last >= first + records:
            raise BrokerUnavailable(self._problems.beyond_end(start.offset))
        # Of a batch that cannot be read, only the first offset has a message.
        found = next((each for each in reversed(messages) if each.offset <= last), None)
        known = None if found is None else fingerprint(incoming_message(found, self._settings))
        if known is not None and start.last_message not in (None, known):
            raise BrokerUnavailable(self._problems.other_message(start.offset))

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
