"""A feed of all events to a webhook as a process that tests kill: two URLs as arguments."""

import asyncio
import sys

from saga_engine.events.feeds.feed_publisher import FeedPublisher
from saga_engine.settings import Settings
from tests.kit.webhooks import FAST_RETRIES, webhook_feed


async def main(database_url: str, url: str) -> None:
    """Run until killed."""
    settings = Settings(projection_lease=0.5, **FAST_RETRIES)
    feeds = [webhook_feed(url)]
    async with FeedPublisher(feeds, database_url, settings, lambda _event: None) as publisher:
        await publisher.run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
