"""What reads the journals of runs beside a measured worker: its read models, or a feed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum

import aio_pika
import asyncpg

SETTLE_SECONDS = 3.0
"""
Both sides of a pair are measured for so long after the last run, so that readers reach the horizon
within the measurement, and both include the same idle time. It is longer than read_model_interval.
"""

POLL_SECONDS, MAX_POLLS = 0.1, 600
"""How often it is read whether readers have reached the horizon, and when that is given up."""

FEED = ("-m", "saga_engine", "projector", "benchmarks.run_feed", "--port", "0")

_CAUGHT_UP = """
    SELECT count(*) > 0 AND coalesce(min(position) >= saga_engine.event_horizon(), false)
    FROM (SELECT position FROM saga_engine.projection
        UNION ALL SELECT position FROM saga_engine.feed) AS reader"""


class EventReaders(StrEnum):
    """What is on in the second measurement of a pair, and not in the first."""

    READ_MODELS = "read-models"  # `saga-engine worker --events`
    FEED = "feed"  # a projector with a feed of the journals of all runs


@asynccontextmanager
async def bound_queue(broker_url: str) -> AsyncIterator[None]:
    """A queue for all events of feeds, deleted after use; no consumer reads it."""
    async with await aio_pika.connect(broker_url) as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange("saga.feed", "topic", durable=True)
        queue = await channel.declare_queue("compared", durable=True)
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
