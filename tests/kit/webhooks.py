"""Feeds to webhooks in the test's process."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from saga_engine.events import Feed
from saga_engine.events.feeds import feed_table, waiting_streams
from saga_engine.events.feeds.feed import Sink
from saga_engine.events.feeds.feed_publisher import FeedPublisher
from saga_engine.events.feeds.feed_table import FeedKey
from saga_engine.events.feeds.waiting_streams import WaitingStream
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from tests.kit.events import EventRecorder
from tests.kit.programs import wait_until_true
from tests.kit.projections import FAST

HOOKS = FeedKey("orders", Sink.WEBHOOK)
VARIABLE = "ORDERS_WEBHOOK_SECRET"
LOCAL = {"webhook_private_networks": "127.0.0.0/8, ::1/128"}
FAST_RETRIES = {
    **LOCAL,
    "webhook_timeout": 1.0,
    "webhook_retry_delay": 0.05,
    "webhook_retry_delay_max": 0.2,
}


def webhook_feed(url: str, **selection: Any) -> Feed:
    feed = Feed("orders", **selection)
    feed.to_webhook(url, secret=VARIABLE)
    return feed


@dataclass(frozen=True)
class RunningWebhook:
    """A process with a feed, and the telemetry events that it emits."""

    publisher: FeedPublisher
    emitted: EventRecorder

    async def problem(self) -> str:
        """Wait until the receiver takes nothing, and say why."""

        async def noticed() -> bool:
            return self.publisher.problem is not None

        await wait_until_true(noticed, interval=0.01)
        return str(self.publisher.problem)


@asynccontextmanager
async def running_webhook(
    database_url: str, feed: Feed, **settings: Any
) -> AsyncIterator[RunningWebhook]:
    """A process with a feed while the block runs."""
    emitted, stop = EventRecorder(), asyncio.Event()
    chosen: dict[str, Any] = {**FAST, **FAST_RETRIES, **settings}
    async with FeedPublisher([feed], database_url, Settings(**chosen), emitted) as publisher:
        task = asyncio.create_task(publisher.run(stop))  # noqa: TID251 - stopped and awaited here
        try:
            yield RunningWebhook(publisher, emitted)
        finally:
            stop.set()
            await task


async def stored_webhook(database: Database) -> feed_table.StoredFeed:
    async with database.transaction() as tx:
        (found,) = await feed_table.read(tx, HOOKS.name)
    return found


async def waiting(database: Database) -> Sequence[WaitingStream]:
    async with database.transaction() as tx:
        return await waiting_streams.read(tx, HOOKS, 100)


async def wait_for_waiting(
    database: Database, count: int, *, dead: bool = False, patience: float = 60.0
) -> None:
    """Wait until so many streams wait; dead: for an operator."""

    async def found() -> bool:
        streams = await waiting(database)
        return len([each for each in streams if not dead or each.retry_at is None]) == count

    await wait_until_true(found, patience=patience, interval=0.01)
