"""The statements on the table of streams."""

import asyncpg
import pytest

from saga_engine.errors import StoreRefused
from saga_engine.events import Append, EventData, Events
from saga_engine.settings import Settings
from saga_engine.vocabulary import Json
from tests.kit.event_database import connected, placed

ROWS = "SELECT stream, version, position FROM saga_engine.stream_event ORDER BY position"
INSERT = """
INSERT INTO saga_engine.stream_event (stream, version, type, schema_version, data, metadata)
VALUES ('{stream}', 1, 'order-placed', 1, '{{}}', '{{}}')"""

COUNT_STATEMENTS = """
CREATE TABLE statement ();
CREATE FUNCTION count_statement() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO statement DEFAULT VALUES; RETURN NULL; END $$;
CREATE TRIGGER count_statement AFTER INSERT ON saga_engine.stream_event
    FOR EACH STATEMENT EXECUTE FUNCTION count_statement()"""


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


async def test_data_is_read_as_it_was_appended(events: Events):
    """A type that sorts keys, or changes numbers, would change what a state is folded from."""
    data: Json = {"may": 1, "april": {"z": -0.0, "a": 1e16}, "b": [1e-7, 2**63]}
    await events.append(Append("order-1", [EventData("order-placed", 1, data)]))
    [event] = [each async for each in events.read("order-1")]
    assert repr(event.data) == repr(data)


async def test_only_the_engine_appends_to_streams_of_runs(event_url: str):
    insert = INSERT.format(stream="run-00000000-0000-7000-8000-000000000001")
    async with connected(event_url) as connection:
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(insert)


async def test_a_session_that_copies_tables_announces_its_positions(events: Events, event_url: str):
    """Other triggers do not fire in it."""
    async with connected(event_url) as copying, copying.transaction():
        await copying.execute("SET LOCAL session_replication_role = replica")
        await copying.execute(INSERT.format(stream="order-1"))
        await events.append(Append("order-2", [placed()]))
        assert await events.position() == 0


async def test_a_statement_appends_no_more_bytes_than_the_setting_allows(event_url: str):
    """Of texts whose characters have two bytes, half as many events."""
    async with connected(event_url) as other:
        await other.execute(COUNT_STATEMENTS)
    events = [EventData("order-placed", 1, "é" * 100)] * 6
    async with (
        Events(event_url, settings=Settings(event_batch_bytes=450)) as client,
        connected(event_url) as other,
    ):
        await client.append(Append("order-1", events))
        assert await other.fetchval("SELECT count(*) FROM statement") == 3
