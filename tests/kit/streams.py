"""Feeds to streams of RabbitMQ, and what their consumers read."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson
from aiormq import spec
from aiormq.abc import DeliveredMessage

from saga_engine.events import Feed, Recorded
from saga_engine.events.feeds.feed import Sink
from saga_engine.events.feeds.feed_table import FeedKey
from tests.kit.connections import raw_channel
from tests.kit.rabbitmq import RabbitMQServer

THREE = ("orders-0", "orders-1", "orders-2")
STREAM_ORDERS = FeedKey("orders", Sink.STREAM)


def stream_feed(stream: str = "orders", name: str = "orders", **options: Any) -> Feed:
    """A feed of all events to a stream."""
    feed = Feed(name)
    feed.to_stream(stream, **options)
    return feed


def stream_url(server: RabbitMQServer, broker_url: str) -> str:
    """The stream URL of the virtual host of an AMQP URL."""
    return server.stream_url_of(unquote(urlsplit(broker_url).path[1:]) or "/")


@dataclass
class StreamReader:
    """The messages of partitions, as AMQP 0-9-1 delivers them from the first on."""

    messages: list[tuple[str, DeliveredMessage]] = field(default_factory=list)
    different: set[str] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, stream: str, message: DeliveredMessage) -> None:
        """Receive a message."""
        self.messages.append((stream, message))
        self.different.add(_attribute(message, "id"))
        self.changed.set()

    @property
    def ids(self) -> list[str]:
        return [_attribute(message, "id") for _, message in self.messages]

    async def wait_for(self, count: int, *, patience: float = 60.0) -> None:
        """Wait until so many different events are received."""
        async with asyncio.timeout(patience):
            while len(self.different) < count:
                self.changed.clear()
                await self.changed.wait()

    def check(self, events: Sequence[Recorded], *, is_once: bool = True) -> None:
        """Each event was received, once, in the order of its stream, and of one partition."""
        first: dict[str, dict[str, None]] = {}
        partitions: dict[str, set[str]] = {}
        for partition, message in self.messages:
            stream, event_id = _attribute(message, "subject"), _attribute(message, "id")
            partitions.setdefault(stream, set()).add(partition)
            first.setdefault(stream, {})[event_id] = None
        expected: dict[str, list[str]] = {}
        for event in events:
            expected.setdefault(event.stream, []).append(str(event.id))
        assert {stream: [*ids] for stream, ids in first.items()} == expected
        assert {len(each) for each in partitions.values()} == {1}
        data = {str(each.id): each.data for each in events}
        for _, message in self.messages:
            assert orjson.loads(message.body) == data[_attribute(message, "id")]
        if is_once:
            assert len(self.ids) == len(events)


def _attribute(message: DeliveredMessage, name: str) -> str:
    headers: Any = message.header.properties.headers
    value = headers[f"cloudEvents_{name}"]
    return value if isinstance(value, str) else value.decode()


@asynccontextmanager
async def reading_streams(broker_url: str, *streams: str) -> AsyncIterator[StreamReader]:
    """Read streams from their beginning by AMQP 0-9-1; they must exist."""
    reader = StreamReader()
    async with raw_channel(broker_url) as channel:
        await channel.basic_qos(prefetch_count=1000)
        for stream in streams:

            async def receive(message: DeliveredMessage, stream: str = stream) -> None:
                reader.add(stream, message)
                assert isinstance(message.delivery, spec.Basic.Deliver)
                await channel.basic_ack(message.delivery.delivery_tag)

            await channel.basic_consume(stream, receive, arguments={"x-stream-offset": "first"})
        yield reader


async def stored_messages(
    broker_url: str, *streams: str, count: int, patience: float = 60.0
) -> StreamReader:
    """What streams have, when they have so many different events."""
    async with reading_streams(broker_url, *streams) as reader:
        await reader.wait_for(count, patience=patience)
        return reader
