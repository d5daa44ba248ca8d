"""A transaction may append as often as it likes: it takes one lock for any number of appends."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from saga_engine.errors import StoreUnavailable
from saga_engine.events import Append, Events, append_in
from saga_engine.settings import Settings
from saga_engine.store.migrate import upgrade
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.event_database import connected, number_in, placed
from tests.kit.servers import running_postgres

STATEMENTS = 20_000
"""More than the table of locks has room for."""

FEW_LOCKS = {"max_connections": "20", "max_locks_per_transaction": "10"}
"""Settings of a server whose table of locks has room for some hundreds."""

APPENDS = 2_000
"""More than that."""

EVENTS = 100_000

INSERTS = f"""
DO $$ BEGIN
    FOR number IN 1..{STATEMENTS} LOOP
        INSERT INTO saga_engine.stream_event
            (stream, version, type, schema_version, data, metadata)
        VALUES ('order-1', number, 'order-placed', 1, '{{}}', '{{}}');
    END LOOP;
END $$"""


LOCK_FOR_EACH = """
CREATE OR REPLACE FUNCTION saga_engine.announce_positions() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared((23147::bigint << 48) | (
        SELECT last_value FROM saga_engine.event_position));
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


@pytest.fixture
async def few_locks_url() -> AsyncIterator[str]:
    """The URL of event tables on a server with a small table of locks."""
    async with running_postgres(settings=FEW_LOCKS) as server:
        url = await server.create_database("few_locks")
        await upgrade(url, EVENT_DATABASE)
        yield url


async def append_one_by_one(url: str) -> None:
    """Append in one transaction, an event at a time."""
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            for number in range(APPENDS):
                await append_in(connection, Append(f"order-{number % 7}", [placed(number)]))
    finally:
        await engine.dispose()


@pytest.mark.long
async def test_many_appends_fit_into_one_transaction_of_the_caller(few_locks_url: str):
    await append_one_by_one(few_locks_url)
    async with Events(few_locks_url, settings=Settings()) as events:
        assert await events.position() == APPENDS
        found = [number_in(event) async for event in events.read_all()]
    assert found == [*range(APPENDS)]


@pytest.mark.long
async def test_a_lock_for_each_append_would_not_fit(few_locks_url: str):
    """Or the test above would prove nothing."""
    async with connected(few_locks_url) as connection:
        await connection.execute(LOCK_FOR_EACH)
    with pytest.raises(StoreUnavailable, match="SQLSTATE 53200"):
        await append_one_by_one(few_locks_url)


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
