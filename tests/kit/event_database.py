"""Events to append in tests, and connections of other programs to event tables."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from saga_engine.events import EventData, Recorded


def placed(number: int = 1, **data: Any) -> EventData:
    """An event of an order."""
    return EventData("order-placed", 1, {"number": number, **data})


def number_in(event: Recorded) -> Any:
    """The number that an event was made with."""
    data: Any = event.data
    return data["number"]


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the driver, as another program has one."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        yield connection
    finally:
        await connection.close()


async def wait_for_waiting_append(url: str) -> None:
    """Wait until a session of the server waits for a lock of another one."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    async with connected(url) as observer, asyncio.timeout(20):
        while not await observer.fetchval(waiting):
            pass
