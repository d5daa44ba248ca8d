"""Events whose data is not JSON that can be read; only another program can have inserted them."""

import pytest

from saga_engine.errors import UnreadableEvent
from saga_engine.events import Append, Events
from tests.kit.event_database import connected, placed

INSERT = """
INSERT INTO saga_engine.stream_event (stream, version, type, schema_version, data, metadata)
VALUES ('order-1', $1, 'order-placed', 1, $2, $3)"""


@pytest.mark.parametrize("data", ["[" * 2000 + "]" * 2000, "1e400"])
async def test_an_event_that_cannot_be_read_stops_only_who_needs_its_data(
    events: Events, event_url: str, data: str
):
    async with connected(event_url) as other:
        await other.execute(INSERT, 1, data, "{}")
    await events.append(Append("order-1", [placed()]))
    first, second = [event async for event in events.read_all()]
    assert second.data == placed().data
    with pytest.raises(UnreadableEvent, match=r"Event 1 of order-1, 'order-placed': its data"):
        _ = first.data
    assert "order-1" in repr(first)
