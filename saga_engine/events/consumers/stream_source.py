"""
A stream of RabbitMQ, or the partitions of a super stream, as the source of a consumer.

It is read by the stream protocol from the offset that the consumer's own database has: RabbitMQ
stores none. A message that is not AMQP 1.0 is kept as unreadable, and the next one is read; by AMQP
0-9-1 it would end the connection.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Any

from rstream import OffsetType, exceptions, schema
from rstream.amqp import amqp_decoder

from saga_engine.errors import BrokerUnavailable
from saga_engine.events.consumers.header_attributes import content_type_attribute, read_attributes
from saga_engine.events.consumers.interfaces import IncomingMessage
from saga_engine.events.consumers.source_options import StreamSourceOptions
from saga_engine.events.feeds.stream_address import stream_addresses
from saga_engine.events.feeds.stream_client import StreamClient, broker_errors, open_client
from saga_engine.settings import Settings

_PREFIXES = ("cloudEvents_", "cloudEvents:")
_PREFIX = "ce-"
_SUBSCRIPTION = 0
_CREDIT = 2
"""Chunks that RabbitMQ sends ahead; each has the messages of one write, at most about 1 MiB."""


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

    @property
    def description(self) -> str:
        return f"stream {self._name}"

    async def partition_count(self) -> int:
        client = await self._connect()
        try:
            self._streams = await _find_streams(client, self._name)
        finally:
            await client.close()
        return len(self._streams)

    async def waiting_count(self, _partition: int, _offset: int | None) -> int | None:
        return None  # RabbitMQ 3.10 does not say where a stream ends

    @asynccontextmanager
    async def subscribe(
        self, partition: int, offset: int | None
    ) -> AsyncIterator["StreamSubscription"]:
        client = await self._connect()
        try:
            stream = self._streams[partition]
            subscription = StreamSubscription(client, stream, offset, self._settings)
            subscription.rewind_command = (
                f"saga-engine consumers rewind {self._consumer} --partition {partition} --to"
            )
            await subscription.begin()
            yield subscription
        except BaseException:
            self._addresses.rotate(-1)  # another node may have the stream
            raise
        finally:
            await client.close()

    async def _connect(self) -> StreamClient:
        for _ in range(len(self._addresses) - 1):
            try:
                return await open_client(self._addresses[0], self._settings)
            except BrokerUnavailable:
                self._addresses.rotate(-1)
        return await open_client(self._addresses[0], self._settings)


class StreamSubscription:
    """
    A partition while this process consumes it; a Subscription.

    Args:
        client: of its own.
        stream: the name of the partition.
        offset: the first one to consume; None: the first that is there.
        settings: the limits of headers and bodies.
    """

    def __init__(
        self, client: StreamClient, stream: str, offset: int | None, settings: Settings
    ) -> None:
        self._client = client
        self._stream = stream
        self.rewind_command = ""
        """Lets the consumer continue at another offset."""
        self._next_offset = offset
        self._settings = settings
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._chunks: deque[schema.Deliver] = deque()
        self._changed = asyncio.Event()
        self._active_at = asyncio.get_running_loop().time()
        client.ended.add_done_callback(lambda _: self._changed.set())

    async def begin(self) -> None:
        """
        Begin to consume.

        Raises:
            BrokerUnavailable: the stream is gone, or this user may not read it.
        """
        await self._client.run_queue_listener_task(_SUBSCRIPTION, self._on_deliver)
        self._client.add_handler(schema.Deliver, self._on_deliver, str(_SUBSCRIPTION))
        self._client.add_handler(schema.MetadataUpdate, self._on_metadata, "source")
        offset = self._next_offset
        kind = OffsetType.FIRST if offset is None else OffsetType.OFFSET
        try:
            with broker_errors(f"Stream {self._stream!r} cannot be read"):
                await self._client.subscribe(
                    self._stream,
                    _SUBSCRIPTION,
                    schema.OffsetSpec.from_params(kind, offset),
                    initial_credit=_CREDIT,
                )
        except exceptions.ServerError as error:
            raise BrokerUnavailable(
                f"Stream {self._stream!r} cannot be read: RabbitMQ says {type(error).__name__}."
                " If it was deleted, start the feed that makes it again; if it is not available,"
                " RabbitMQ may be electing a leader for it."
            ) from error

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
        return [incoming_message(*each, self._settings) for each in taken]

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
        first = self._next_offset
        if first is not None and chunk.chunk_first_offset > first:
            raise BrokerUnavailable(
                f"Stream {self._stream!r} no longer has offset {first}: its retention has deleted"
                f" what is before {chunk.chunk_first_offset}. To go on without these events, run"
                f" `{self.rewind_command} {chunk.chunk_first_offset}`."
            )
        messages = zip(count(chunk.chunk_first_offset), chunk.get_messages(), strict=False)
        self._waiting.extend(each for each in messages if first is None or each[0] >= first)
        self._next_offset = chunk.chunk_first_offset + chunk.num_records

    def _on_deliver(self, chunk: schema.Deliver) -> None:
        self._chunks.append(chunk)
        self._changed.set()

    def _on_metadata(self, _update: schema.MetadataUpdate) -> None:
        self._client.end("RabbitMQ has moved or deleted it")


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


def incoming_message(offset: int, encoded: bytes, settings: Settings) -> IncomingMessage:
    """Read a message of a stream; one that is not AMQP 1.0 has a problem."""
    try:
        decoded: Any = amqp_decoder(encoded)
        properties = decoded.application_properties or {}
        headers = [(_unprefixed(_text(name)), _bytes(value)) for name, value in properties.items()]
        body = bytes(decoded.body) if isinstance(decoded.body, bytes | memoryview) else b""
        content_type = content_type_attribute(
            decoded.properties and decoded.properties.content_type
        )
    except Exception:  # noqa: BLE001 - of anything that a sender has written
        headers, body, content_type = [], encoded, {}
        problem = "It is not a message of AMQP 1.0."
    else:
        problem = ""
    attributes, header_problem = read_attributes(headers, _PREFIX, settings)
    return IncomingMessage(
        attributes=attributes | content_type,
        body=body[: settings.max_body_bytes],
        body_size=len(body),
        problem=problem or header_problem,
        offset=offset,
    )


def _text(name: object) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _bytes(value: object) -> bytes | str:
    return value if isinstance(value, bytes | str) else str(value)


def _unprefixed(name: str) -> str:
    """Give both prefixes of the AMQP binding of CloudEvents one form."""
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return f"{_PREFIX}{name.removeprefix(prefix)}"
    return name
