"""
A projector of six projections as a process, which shares them with others of its kind.

`python -m` with a URL; SIGTERM stops it.
"""

import asyncio
import signal
import sys

from sqlalchemy import BigInteger, Column, Integer, MetaData, Table

from saga_engine.events.projections.change import Change, upsert
from saga_engine.events.projections.projection import Projection
from saga_engine.events.projections.projector import Projector
from saga_engine.settings import Settings

METADATA = MetaData()
SETTINGS = Settings(projection_lease=0.6, event_poll_interval_max=0.05)
NUMBER = 6


def counting_projection(number: int) -> Projection:
    """It counts the orders that were placed."""
    table = Table(
        f"count_{number}",
        METADATA,
        Column("id", Integer, primary_key=True),
        Column("orders", BigInteger, nullable=False, server_default="0"),
        extend_existing=True,
    )
    projection = Projection(f"count_{number}", version=1, tables=[table])

    @projection.on("order-placed")
    def placed(data, recorded) -> Change:
        return upsert(table, key={"id": 1}, add={"orders": 1})

    return projection


PROJECTIONS = [counting_projection(n) for n in range(NUMBER)]


async def main(url: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Projector(PROJECTIONS, url, SETTINGS, lambda _event: None) as projector:
        await projector.run(stop)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
