"""A consumer of orders as a process that tests kill: `python -m` with two URLs."""

import asyncio
import sys

from saga_engine.events.consumers.event_consumption import EventConsumption
from saga_engine.settings import Settings
from tests.kit.consumers import billing_consumer


async def main(database_url: str, broker_url: str) -> None:
    """Run until killed."""
    settings = Settings(projection_lease=0.5, broker_url=broker_url)
    async with EventConsumption(
        [billing_consumer()], database_url, settings, lambda _event: None
    ) as consumption:
        await consumption.run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
