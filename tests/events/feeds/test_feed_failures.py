"""A failure names the event that has stopped a feed, and what was done about it is kept."""

import pytest

from saga_engine.events.feeds import feed_failures, feed_table
from saga_engine.events.feeds.feed_failures import Resolution
from saga_engine.events.feeds.feed_table import FeedState
from saga_engine.events.readers.operator_audit import Operator
from tests.kit.event_database import connected
from tests.kit.feeds import ORDERS, STOPPING_EVENT, stop_orders, stored_feed

MARA = Operator("mara", "a test order")


async def test_a_failure_names_its_event(feed_database):
    await stop_orders(feed_database)
    async with feed_database.transaction() as tx:
        failure = await feed_failures.read_open(tx, ORDERS)
    assert failure is not None
    assert (failure.stream, failure.stream_version, failure.position) == ("order-o-1", 3, 8)
    assert (failure.type, failure.event_id) == ("order-placed", STOPPING_EVENT.id)
    assert (failure.error, failure.attempts) == ("No queue.", 1)
    assert (await stored_feed(feed_database)).state is FeedState.STOPPED


@pytest.mark.parametrize("resolution", list(Resolution))
async def test_who_has_resolved_it_and_why_is_kept(feed_database, event_url, resolution):
    await stop_orders(feed_database)
    async with feed_database.transaction() as tx:
        await feed_failures.resolve(tx, ORDERS, resolution, MARA)
        assert await feed_failures.read_open(tx, ORDERS) is None
    async with connected(event_url) as connection:
        row = await connection.fetchrow("SELECT * FROM saga_engine.feed_failure")
    assert (row["resolution"], row["resolved_by"], row["reason"]) == (
        resolution.value,
        "mara",
        "a test order",
    )
    assert row["resolved_at"] >= row["failed_at"]


async def test_an_event_that_fails_again_is_counted(feed_database):
    await stop_orders(feed_database)
    async with feed_database.transaction() as tx:
        await feed_failures.resolve(tx, ORDERS, Resolution.RETRIED, MARA)
        await feed_failures.stop(tx, ORDERS, STOPPING_EVENT, "Still no queue.")
        failure = await feed_failures.read_open(tx, ORDERS)
    assert failure is not None
    assert (failure.attempts, failure.error) == (2, "Still no queue.")


async def test_a_feed_keeps_the_newest_of_its_resolved_failures(
    feed_database, event_url, monkeypatch
):
    monkeypatch.setattr(feed_failures, "MAX_RESOLVED", 2)
    for position in range(1, 5):
        async with feed_database.transaction() as tx:
            await feed_table.set_state(tx, ORDERS, FeedState.ACTIVE, position - 1)
        await stop_orders(feed_database, position)
        async with feed_database.transaction() as tx:
            await feed_failures.resolve(tx, ORDERS, Resolution.DISCARDED, MARA)
    async with connected(event_url) as connection:
        rows = await connection.fetch("SELECT position FROM saga_engine.feed_failure ORDER BY 1")
    assert [row["position"] for row in rows] == [3, 4]
