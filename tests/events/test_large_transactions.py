"""A transaction may append as often as it likes: it takes one lock for any number of appends."""

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from saga_engine.events import Append, Events, append_in
from tests.kit.event_database import connected, number_in, placed

STATEMENTS = 20_000
"""More than the table of locks has room for."""

EVENTS = 100_000

INSERTS = f"""
DO $$ BEGIN
    FOR number IN 1..{STATEMENTS} LOOP
        INSERT INTO saga_engine.stream_event
            (stream, version, type, schema_version, data, metadata)
        VALUES ('order-1', number, 'order-placed', 1, '{{}}', '{{}}');
    END LOOP;
END $$"""


async def test_a_transaction_announces_once_for_any_number_of_statements(
    events: Events, event_url: str
):
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    async with connected(event_url) as connection, connection.transaction():
        await connection.execute(INSERTS)
        assert await connection.fetchval(locks) == 1
        assert await events.position() == 0
    assert await events.position() == STATEMENTS


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_many_appends_fit_into_one_transaction_of_the_caller(
    events: Events, user_engine: AsyncEngine
):
    async with user_engine.begin() as connection:
        for number in range(STATEMENTS):
            await append_in(connection, Append(f"order-{number % 7}", [placed(number)]))
        assert await events.position() == 0
    assert await events.position() == STATEMENTS
    found = [number_in(event) async for event in events.read_all()]
    assert found == [*range(STATEMENTS)]


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_as_many_events_as_an_append_may_have_are_appended_in_order(
    events: Events, user_engine: AsyncEngine
):
    async with user_engine.begin() as connection:
        done = await append_in(
            connection,
            Append("order-1", [placed(number) for number in range(EVENTS // 2)]),
            Append("order-2", [placed(number) for number in range(EVENTS // 2)]),
        )
    assert done.versions == {"order-1": EVENTS // 2, "order-2": EVENTS // 2}
    for stream in done.versions:
        found = [number_in(event) async for event in events.read(stream)]
        assert found == [*range(EVENTS // 2)]
    assert [event async for event in events.read_all()][-1].position == done.position
