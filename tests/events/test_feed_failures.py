"""A failure stops a feed until an operator resolves it, and what was done is kept."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from saga_engine.errors import Conflict, NotFound
from saga_engine.events import Recorded, feed_failures, feed_table
from saga_engine.events.feed_failures import Resolution
from saga_engine.events.feed_table import FeedKey, FeedState, Progress, Sink
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.event_database import connected
from tests.kit.feeds import stored_feed

KEY = FeedKey("orders", Sink.EXCHANGE)
EVENT = Recorded(
    stream="order-o-1",
    version=3,
    position=8,
    type="order-placed",
    schema_version=1,
    recorded_at=datetime(2026, 11, 30, tzinfo=UTC),
    id=UUID(int=8),
    data={},
)


@pytest.fixture
async def database(event_url):
    """With a feed that has stopped at EVENT."""
    async with Database(event_url, Settings(), EVENT_DATABASE) as database:
        async with database.transaction() as tx:
            await feed_table.register(tx, [KEY])
            assert await feed_table.save(tx, KEY, Progress(0, 7), "a", 60.0)
            await feed_failures.stop(tx, KEY, EVENT, "No queue.")
        yield database


async def resolve(database, resolution, key=KEY):
    async with database.transaction() as tx:
        return await feed_failures.resolve(tx, key, resolution, "a reason")


async def test_a_failure_names_its_event(database):
    async with database.transaction() as tx:
        failure = await feed_failures.read_open(tx, KEY)
    assert failure is not None
    assert (failure.stream, failure.stream_version, failure.position) == ("order-o-1", 3, 8)
    assert (failure.type, failure.event_id) == ("order-placed", EVENT.id)
    assert (failure.error, failure.attempts) == ("No queue.", 1)
    assert (await stored_feed(database)).state is FeedState.STOPPED


@pytest.mark.parametrize(
    ("resolution", "position"), [(Resolution.RETRIED, 7), (Resolution.DISCARDED, 8)]
)
async def test_a_resolved_failure_lets_the_feed_continue(database, event_url, resolution, position):
    assert (await resolve(database, resolution)).position == 8
    found = await stored_feed(database)
    assert (found.state, found.position) == (FeedState.ACTIVE, position)
    async with connected(event_url) as connection:
        row = await connection.fetchrow("SELECT * FROM saga_engine.feed_failure")
    assert (row["resolution"], row["reason"]) == (resolution.value, "a reason")
    assert row["resolved_by"]
    assert row["resolved_at"] >= row["failed_at"]
    with pytest.raises(Conflict, match="'orders' is not stopped"):
        await resolve(database, resolution)


async def test_a_retried_event_that_fails_again_is_counted(database):
    await resolve(database, Resolution.RETRIED)
    async with database.transaction() as tx:
        await feed_failures.stop(tx, KEY, EVENT, "Still no queue.")
        failure = await feed_failures.read_open(tx, KEY)
    assert failure is not None
    assert (failure.attempts, failure.error) == (2, "Still no queue.")


async def test_an_unknown_feed_is_not_found(database):
    with pytest.raises(NotFound, match="no feed 'other' to the exchange"):
        await resolve(database, Resolution.RETRIED, FeedKey("other", Sink.EXCHANGE))
