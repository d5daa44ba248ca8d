"""A feed of all events as a process that tests kill: `python -m` with two URLs."""

import asyncio
import sys

from saga_engine.events.feeds.feed_publisher import FeedPublisher
from saga_engine.settings import Settings
from tests.kit.feeds import order_feed


async def main(database_url: str, broker_url: str) -> None:
    """Run until killed."""
    settings = Settings(projection_lease=0.5, broker_url=broker_url)
    feeds = [order_feed()]
    async with FeedPublisher(feeds, database_url, settings, lambda _event: None) as publisher:
        await publisher.run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
