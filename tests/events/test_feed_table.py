"""One process has a feed, and only the one that is at the stored position can move it."""

import pytest

from saga_engine.events import feed_table
from saga_engine.events.feed_table import FeedKey, FeedState, Progress, Sink
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.feeds import stored_feed

KEY = FeedKey("orders", Sink.EXCHANGE)


@pytest.fixture
async def database(event_url):
    async with Database(event_url, Settings(), EVENT_DATABASE) as database:
        async with database.transaction() as tx:
            await feed_table.register(tx, [KEY])
        yield database


async def acquire(database, owner: str, lease: float = 60.0) -> int | None:
    async with database.transaction() as tx:
        return await feed_table.acquire(tx, KEY, owner, lease)


async def save(database, progress: Progress, owner: str = "a") -> bool:
    async with database.transaction() as tx:
        return await feed_table.save(tx, KEY, progress, owner, 60.0)


async def test_registering_again_keeps_the_position(database):
    assert await save(database, Progress(0, 7, skipped=2))
    async with database.transaction() as tx:
        await feed_table.register(tx, [KEY, FeedKey("runs", Sink.EXCHANGE)])
        found = [(each.name, each.position, each.skipped) for each in await feed_table.read(tx)]
    assert found == [("orders", 7, 2), ("runs", 0, 0)]


async def test_a_lease_ends_with_its_time_or_with_its_release(database):
    assert await acquire(database, "a") == 0
    assert await acquire(database, "a") == 0
    assert await acquire(database, "b") is None
    assert (await stored_feed(database)).owner == "a"
    async with database.transaction() as tx:
        await feed_table.release(tx, "b")
    assert await acquire(database, "b") is None
    async with database.transaction() as tx:
        await feed_table.release(tx, "a")
    assert await acquire(database, "b", lease=-1) == 0
    assert (await stored_feed(database)).owner is None
    assert await acquire(database, "c") == 0


async def test_a_position_is_saved_by_the_process_that_has_continued_from_the_one_before(database):
    assert await save(database, Progress(0, 5, skipped=1), "a")
    assert not await save(database, Progress(0, 9, skipped=1), "b")
    assert await save(database, Progress(5, 6), "b")
    found = await stored_feed(database)
    assert (found.position, found.skipped, found.owner) == (6, 1, "b")


async def test_a_stopped_feed_has_no_owner_and_saves_nothing(database):
    await acquire(database, "a")
    async with database.transaction() as tx:
        await feed_table.set_state(tx, KEY, FeedState.STOPPED, 3)
    assert await acquire(database, "b") is None
    assert not await save(database, Progress(3, 4))
    found = await stored_feed(database)
    assert (found.state, found.position, found.owner) == (FeedState.STOPPED, 3, None)


async def test_only_a_registered_feed_can_be_locked(database):
    async with database.transaction() as tx:
        assert await feed_table.lock(tx, KEY)
        assert not await feed_table.lock(tx, FeedKey("runs", Sink.EXCHANGE))
