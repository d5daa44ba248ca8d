"""A feed of all events to a stream as a process that tests kill: `python -m` with three URLs."""

import asyncio
import sys
from contextlib import suppress

from saga_engine.errors import BrokerUnavailable
from saga_engine.events.feeds.feed_publisher import FeedPublisher
from saga_engine.settings import Settings
from tests.kit.connections import FAST_RECONNECT
from tests.kit.streams import stream_feed


async def main(database_url: str, broker_url: str, broker_stream_url: str) -> None:
    """Run until killed; start again while RabbitMQ does, as a supervisor would."""
    settings = Settings(
        projection_lease=0.5,
        broker_url=broker_url,
        broker_stream_url=broker_stream_url,
        **FAST_RECONNECT,
    )
    feed = stream_feed(partitions=3)
    while True:
        with suppress(BrokerUnavailable):
            async with FeedPublisher([feed], database_url, settings, lambda _: None) as publisher:
                await publisher.run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
