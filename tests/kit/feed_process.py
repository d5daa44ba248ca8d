"""A feed of all events as a process that tests kill: `python -m` with arguments."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import orjson

from saga_engine.events import Feed
from saga_engine.events.feeds.feed_publisher import FeedPublisher
from saga_engine.settings import Settings
from tests.kit.connections import FAST_RECONNECT
from tests.kit.feeds import order_feed
from tests.kit.kafka_feeds import kafka_feed
from tests.kit.streams import stream_feed
from tests.kit.supervised import run_supervised
from tests.kit.webhooks import webhook_feed

FEEDS: dict[str, Callable[[str], Feed]] = {
    "exchange": lambda _name: order_feed(),
    "stream": lambda name: stream_feed(name, partitions=3),
    "kafka": kafka_feed,
    "webhook": webhook_feed,
}


async def main(database_url: str, settings: str, sink: str = "exchange", name: str = "") -> None:
    """
    Run until killed.

    Args:
        database_url: of the events.
        settings: JSON.
        sink: one of FEEDS.
        name: of the stream or the topic, or the URL of the webhook.
    """
    given: dict[str, Any] = {**FAST_RECONNECT, "projection_lease": 0.5, **orjson.loads(settings)}
    feeds = [FEEDS[sink](name)]
    await run_supervised(
        lambda: FeedPublisher(feeds, database_url, Settings(**given), lambda _event: None)
    )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
