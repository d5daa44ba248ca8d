"""Feeds in the test's process, the queues of their consumers, and what must be in these."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from aiormq.abc import AbstractChannel, DeliveredMessage

from saga_engine.events import Events, Feed, Recorded
from saga_engine.events.feeds import feed_failures, feed_table
from saga_engine.events.feeds.feed import Sink
from saga_engine.events.feeds.feed_publisher import FeedPublisher
from saga_engine.events.feeds.feed_table import FeedKey, StoredFeed
from saga_engine.protocol.topology import FEED
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from tests.kit.connections import FAST_RECONNECT
from tests.kit.events import EventRecorder
from tests.kit.programs import wait_until_true
from tests.kit.projections import FAST

ORDERS = FeedKey("orders", Sink.EXCHANGE)


def order_feed(name: str = "orders", *, unroutable: str = "skip", **selection: Any) -> Feed:
    feed = Feed(name, **selection)
    feed.to_exchange(unroutable=unroutable)
    return feed


def order_event(position: int) -> Recorded:
    """The third event of order o-1, at a position."""
    return Recorded(
        stream="order-o-1",
        version=3,
        position=position,
        type="order-placed",
        schema_version=1,
        recorded_at=datetime(2026, 11, 30, tzinfo=UTC),
        id=UUID(int=8),
        data={},
    )


STOPPING_EVENT = order_event(8)


async def stop_orders(database: Database, position: int = 8) -> None:
    """Stop the registered feed `orders` at an event."""
    async with database.transaction() as tx:
        await feed_failures.stop(tx, ORDERS, order_event(position), "No queue.")


@asynccontextmanager
async def running_feeds(
    database_url: str, broker_url: str, feeds: Sequence[Feed], **settings: Any
) -> AsyncIterator[EventRecorder]:
    """A process with feeds while the block runs; the telemetry events that it emits."""
    emitted, stop = EventRecorder(), asyncio.Event()
    chosen: dict[str, Any] = {"broker_url": broker_url, **FAST, **FAST_RECONNECT, **settings}
    async with FeedPublisher(feeds, database_url, Settings(**chosen), emitted) as publisher:
        task = asyncio.create_task(publisher.run(stop))  # noqa: TID251 - stopped and awaited here
        try:
            yield emitted
        finally:
            stop.set()
            await task


async def stored_feed(database: Database, name: str = "orders") -> StoredFeed:
    async with database.transaction() as tx:
        (found,) = await feed_table.read(tx, name)
    return found


async def wait_for_feed(
    database: Database, position: int, name: str = "orders", *, patience: float = 60.0
) -> None:
    """Wait until a feed has passed a position."""

    async def passed() -> bool:
        return (await stored_feed(database, name)).position >= position

    await wait_until_true(passed, patience=patience, interval=0.01)


async def bind_queue(
    channel: AbstractChannel, queue: str, key: str = "#", arguments: Any = None
) -> None:
    """A consumer's queue of events."""
    await channel.exchange_declare(FEED, exchange_type="topic", durable=True)
    await channel.queue_declare(queue, durable=True, arguments=arguments or {})
    await channel.queue_bind(queue, FEED, key)


@dataclass
class Received:
    """The messages that a consumer has received, in their order."""

    messages: list[DeliveredMessage] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, message: DeliveredMessage) -> None:
        self.messages.append(message)
        self.changed.set()

    @property
    def ids(self) -> list[str]:
        return [str(each.header.properties.message_id) for each in self.messages]

    async def wait_for(self, count: int, *, patience: float = 60.0) -> None:
        """Wait until different events have been received, so many."""
        async with asyncio.timeout(patience):
            while len(self.messages) < count or len(set(self.ids)) < count:
                self.changed.clear()
                await self.changed.wait()

    def check(self, events: Sequence[Recorded]) -> None:
        """See `check_delivered`."""
        check_delivered([*map(_delivered, self.messages)], events)


@dataclass(frozen=True)
class Delivered:
    """An event as a consumer has it, of any sink."""

    id: str
    stream: str
    body: bytes


def _delivered(message: DeliveredMessage) -> Delivered:
    headers: Any = message.header.properties.headers
    assert str(message.header.properties.message_id) == headers["ce-id"]
    return Delivered(headers["ce-id"], headers["ce-subject"], message.body)


def check_delivered(delivered: Sequence[Delivered], events: Sequence[Recorded]) -> None:
    """Every event was delivered, in the order of its stream; the others are repetitions."""
    assert {each.id for each in delivered} == {str(each.id) for each in events}
    expected: dict[str, list[str]] = {}
    for event in events:
        expected.setdefault(event.stream, []).append(str(event.id))
    first: dict[str, dict[str, None]] = {}
    for each in delivered:
        first.setdefault(each.stream, {})[each.id] = None
    assert {stream: [*ids] for stream, ids in first.items()} == expected
    data = {str(each.id): each.data for each in events}
    for each in delivered:
        assert orjson.loads(each.body) == data[each.id]


async def receive_from(channel: AbstractChannel, queue: str) -> Received:
    """Receive the messages of a queue from now on; a message is gone when it was received."""
    received = Received()
    await channel.basic_consume(queue, received, no_ack=True)
    return received


async def every_event(events: Events) -> list[Recorded]:
    return [each async for each in events.read_all()]
