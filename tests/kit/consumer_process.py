"""A consumer of orders as a process that tests kill: `python -m` with arguments."""

import asyncio
import sys
from typing import Any

import orjson

from saga_engine.events import from_kafka, from_queue, from_stream
from saga_engine.events.consumers.event_consumption import EventConsumption
from saga_engine.settings import Settings
from tests.kit.connections import FAST_RECONNECT
from tests.kit.consumers import billing_consumer
from tests.kit.supervised import run_supervised

SOURCES = {"queue": lambda _name: from_queue(), "stream": from_stream, "kafka": from_kafka}


async def main(database_url: str, settings: str, source: str = "queue", name: str = "") -> None:
    """
    Run until killed.

    Args:
        database_url: of the effects.
        settings: JSON.
        source: one of SOURCES.
        name: of the stream or the topic.
    """
    given: dict[str, Any] = {**FAST_RECONNECT, "projection_lease": 0.5, **orjson.loads(settings)}
    consumers = [billing_consumer(SOURCES[source](name))]
    await run_supervised(
        lambda: EventConsumption(consumers, database_url, Settings(**given), lambda _event: None)
    )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
