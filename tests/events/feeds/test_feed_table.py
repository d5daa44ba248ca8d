"""One process has a feed, and only that one can move it, from the stored position."""

from saga_engine.events.feeds import feed_table
from saga_engine.events.feeds.confirmed_offsets import NO_OFFSETS, ConfirmedOffsets
from saga_engine.events.feeds.feed import Sink
from saga_engine.events.feeds.feed_table import FeedKey, FeedState, Progress
from tests.kit.feeds import ORDERS, stored_feed


async def acquire(feed_database, owner: str, lease: float = 60.0) -> int | None:
    async with feed_database.transaction() as tx:
        return await feed_table.acquire(tx, ORDERS, owner, lease)


async def save(feed_database, progress: Progress, owner: str = "a") -> bool:
    async with feed_database.transaction() as tx:
        return await feed_table.save(tx, ORDERS, progress, owner, 60.0)


async def test_registering_again_keeps_the_position(feed_database):
    await acquire(feed_database, "a")
    assert await save(feed_database, Progress(0, 7, skipped=2))
    async with feed_database.transaction() as tx:
        await feed_table.register(tx, [ORDERS, FeedKey("runs", Sink.EXCHANGE)])
        found = [(each.name, each.position, each.skipped) for each in await feed_table.read(tx)]
    assert found == [("orders", 7, 2), ("runs", 0, 0)]


async def test_a_lease_ends_with_its_time_or_with_its_release(feed_database):
    assert await acquire(feed_database, "a") == 0
    assert await acquire(feed_database, "a") == 0
    assert await acquire(feed_database, "b") is None
    assert (await stored_feed(feed_database)).owner == "a"
    async with feed_database.transaction() as tx:
        await feed_table.release(tx, "b")
    assert await acquire(feed_database, "b") is None
    async with feed_database.transaction() as tx:
        await feed_table.release(tx, "a")
    assert await acquire(feed_database, "b", lease=-1) == 0
    assert (await stored_feed(feed_database)).owner is None
    assert await acquire(feed_database, "c") == 0


async def test_a_position_is_saved_by_the_owner_that_has_continued_from_the_one_before(
    feed_database,
):
    await acquire(feed_database, "a")
    assert await save(feed_database, Progress(0, 5, skipped=1), "a")
    assert not await save(feed_database, Progress(0, 9, skipped=1), "a")
    assert await save(feed_database, Progress(5, 6), "a")
    found = await stored_feed(feed_database)
    assert (found.position, found.skipped, found.owner) == (6, 1, "a")


async def test_what_was_confirmed_is_saved_with_the_position_until_an_operator_acts(
    feed_database,
):
    confirmed = ConfirmedOffsets("orders id", (3, 0))
    await acquire(feed_database, "a")
    assert await read_confirmed(feed_database) == NO_OFFSETS
    assert await save(feed_database, Progress(0, 5, confirmed=confirmed))
    assert await read_confirmed(feed_database) == confirmed
    assert not await save(feed_database, Progress(0, 6))
    assert await read_confirmed(feed_database) == confirmed
    async with feed_database.transaction() as tx:
        await feed_table.set_state(tx, ORDERS, FeedState.ACTIVE, 3)
    assert await read_confirmed(feed_database) == NO_OFFSETS


async def read_confirmed(feed_database) -> ConfirmedOffsets:
    async with feed_database.transaction() as tx:
        return await feed_table.read_confirmed(tx, ORDERS)


async def test_an_owner_whose_lease_another_has_taken_saves_nothing(feed_database):
    await acquire(feed_database, "a", lease=-1)
    assert await save(feed_database, Progress(0, 5)), (
        "its lease has ended, and no other process has taken it"
    )
    await acquire(feed_database, "a", lease=-1)
    assert await acquire(feed_database, "b") == 5
    assert not await save(feed_database, Progress(5, 6), "a")
    assert await save(feed_database, Progress(5, 7), "b")


async def test_a_stopped_feed_has_no_owner_and_saves_nothing(feed_database):
    await acquire(feed_database, "a")
    async with feed_database.transaction() as tx:
        await feed_table.set_state(tx, ORDERS, FeedState.STOPPED, 3)
    assert await acquire(feed_database, "b") is None
    assert not await save(feed_database, Progress(3, 4))
    found = await stored_feed(feed_database)
    assert (found.state, found.position, found.owner) == (FeedState.STOPPED, 3, None)


async def test_only_a_registered_feed_can_be_locked(feed_database):
    async with feed_database.transaction() as tx:
        assert await feed_table.lock(tx, ORDERS)
        assert not await feed_table.lock(tx, FeedKey("runs", Sink.EXCHANGE))
