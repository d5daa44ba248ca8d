"""The statements on the table of streams."""

import pytest

from saga_engine.errors import StoreRefused
from saga_engine.events import Append, Events
from tests.kit.event_database import connected, placed

ROWS = "SELECT stream, version, position FROM saga_engine.stream_event ORDER BY position"


async def test_positions_are_drawn_in_the_order_of_the_events(events: Events, event_url: str):
    """Also when the planner reads the streams in another order."""
    appends = [Append(f"order-{name}", [placed()] * 30) for name in ("z", "a", "m")]
    await events.append(*appends)
    async with connected(event_url) as connection:
        rows = [tuple(row) for row in await connection.fetch(ROWS)]
    assert [row[:2] for row in rows] == [
        (append.stream, version) for append in appends for version in range(1, 31)
    ]
    assert [row[2] for row in rows] == [*range(1, 91)]


async def test_a_position_is_stored_once(event_url: str):
    """A table that was restored without its sequence refuses events; none is passed over."""
    async with connected(event_url) as connection, Events(event_url) as events:
        await events.append(Append("order-1", [placed()] * 3))
        await connection.execute("SELECT setval('saga_engine.event_position', 0)")
        with pytest.raises(StoreRefused, match="stream_event_position"):
            await events.append(Append("order-2", [placed()]))
