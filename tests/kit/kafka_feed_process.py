"""A feed of all events to Kafka as a process that tests kill: `python -m` with arguments."""

import asyncio
import sys

from saga_engine.events.feeds.feed_publisher import FeedPublisher
from saga_engine.settings import Settings
from tests.kit.kafka_feeds import FAST, kafka_feed


async def main(database_url: str, servers: str, topic: str) -> None:
    """Run until killed."""
    settings = Settings(kafka_bootstrap_servers=servers, projection_lease=0.5, **FAST)
    async with FeedPublisher(
        [kafka_feed(topic)], database_url, settings, lambda _event: None
    ) as publisher:
        await publisher.run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
