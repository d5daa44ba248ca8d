"""What reads the journals of runs beside a measured worker: its read models, or a feed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum

import aio_pika
import asyncpg
from pamqp.common import FieldTable

from saga_engine.events.feeds.feed import Sink

SETTLE_SECONDS = 3.0
"""
Both sides of a pair are measured for so long after the last run, so that readers reach the horizon
within the measurement, and both include the same idle time. It is longer than read_model_interval.
"""

POLL_SECONDS, MAX_POLLS = 0.1, 600
"""How often it is read whether readers have reached the horizon, and when that is given up."""

_CAUGHT_UP = """
    SELECT count(*) > 0 AND coalesce(min(position) >= saga_engine.event_horizon(), false)
    FROM (SELECT position FROM saga_engine.projection
        UNION ALL SELECT position FROM saga_engine.feed) AS reader"""


class EventReaders(StrEnum):
    """What is on in the second measurement of a pair, and not in the first."""

    READ_MODELS = "read-models"  # `saga-engine worker --events`
    FEED = "feed"  # a projector with a feed of the journals of all runs to the exchange
    STREAM_FEED = "stream-feed"  # the same to a stream of RabbitMQ with 10 partitions
    KAFKA_FEED = "kafka-feed"  # the same to a topic with 10 partitions
    WEBHOOK_FEED = "webhook-feed"  # a feed of the ends of all runs to a webhook

    @property
    def sink(self) -> Sink | None:
        """Where the feed publishes; None for read models."""
        return _SINKS.get(self)

    @property
    def feed_command(self) -> tuple[str, ...]:
        """The arguments of Python for the process of the feed."""
        assert self.sink, "read models are in the worker"
        feed = f"benchmarks.run_feeds:to_{self.sink.value}"
        return ("-m", "saga_engine", "projector", feed, "--port", "0")


_SINKS = {
    EventReaders.FEED: Sink.EXCHANGE,
    EventReaders.STREAM_FEED: Sink.STREAM,
    EventReaders.KAFKA_FEED: Sink.KAFKA,
    EventReaders.WEBHOOK_FEED: Sink.WEBHOOK,
}


@asynccontextmanager
async def bound_queue(broker_url: str) -> AsyncIterator[None]:
    """A quorum queue for all events of feeds, deleted after use; no consumer reads it."""
    async with await aio_pika.connect(broker_url) as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange("saga.feed", "topic", durable=True)
        quorum: FieldTable = {"x-queue-type": "quorum"}
        queue = await channel.declare_queue("compared", durable=True, arguments=quorum)
        await queue.bind(exchange, "#")
        try:
            yield
        finally:
            await queue.delete(if_unused=False, if_empty=False)


async def wait_until_caught_up(database_url: str) -> None:
    """Wait until each projection and feed of a database has reached the horizon."""
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    try:
        for _ in range(MAX_POLLS):
            if await connection.fetchval(_CAUGHT_UP):
                return
            await asyncio.sleep(POLL_SECONDS)
        raise SystemExit(
            f"The readers have not reached the horizon in {POLL_SECONDS * MAX_POLLS:g} s"
        )
    finally:
        await connection.close()
