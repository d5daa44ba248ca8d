"""An operator retries, discards and rewinds, and cannot lose an event by mistake."""

import pytest

from saga_engine.errors import Conflict, NotFound
from saga_engine.events.feeds import feed_actions, feed_failures, feed_table
from saga_engine.events.feeds.feed import Sink
from saga_engine.events.feeds.feed_table import FeedKey, FeedState, Progress
from saga_engine.events.readers import operator_audit
from saga_engine.events.readers.operator_audit import Operator
from tests.kit.feeds import ORDERS, stop_orders, stored_feed

OTHER = FeedKey("other", Sink.EXCHANGE)
MARA = Operator("mara", "a test order")


async def state(database):
    found = await stored_feed(database)
    return found.state, found.position


async def test_who_acted_and_why_stays_known(feed_database):
    await stop_orders(feed_database)
    async with feed_database.transaction() as tx:
        await feed_actions.retry(tx, ORDERS, MARA)
    await stop_orders(feed_database)
    async with feed_database.transaction() as tx:
        await feed_actions.discard(tx, ORDERS, 8, MARA)
        await feed_actions.rewind(tx, ORDERS, 5, MARA)
        found = await operator_audit.read(tx, feed_actions.audited(ORDERS), 10)
    assert [(each.action, each.position) for each in found] == [
        ("rewind", 5),
        ("discard", 8),
        ("retry", 8),
    ]
    assert {(each.operator, each.reason) for each in found} == {(MARA.name, MARA.reason)}


async def test_a_retried_feed_continues_with_its_event(feed_database):
    await stop_orders(feed_database)
    async with feed_database.transaction() as tx:
        assert await feed_actions.retry(tx, ORDERS, MARA) == 8
    assert await state(feed_database) == (FeedState.ACTIVE, 7)
    with pytest.raises(Conflict, match=r"orders \(exchange\) is active; no event of it has failed"):
        async with feed_database.transaction() as tx:
            await feed_actions.retry(tx, ORDERS, MARA)


async def test_a_discarded_event_is_passed(feed_database):
    await stop_orders(feed_database)
    async with feed_database.transaction() as tx:
        await feed_actions.discard(tx, ORDERS, 8, MARA)
        assert await feed_failures.read_open(tx, ORDERS) is None
    assert await state(feed_database) == (FeedState.ACTIVE, 8)


@pytest.mark.parametrize(
    ("position", "operator", "error", "text"),
    [
        (8, Operator("mara", "  "), Conflict, "Give the reason"),
        (9, MARA, NotFound, "no failure at position 9"),
    ],
)
async def test_only_the_event_that_has_stopped_the_feed_is_discarded_and_for_a_reason(
    feed_database, position, operator, error, text
):
    await stop_orders(feed_database)
    with pytest.raises(error, match=text):
        async with feed_database.transaction() as tx:
            await feed_actions.discard(tx, ORDERS, position, operator)
    assert await state(feed_database) == (FeedState.STOPPED, 7)


async def test_a_rewound_feed_has_no_owner_that_would_go_on(feed_database):
    async with feed_database.transaction() as tx:
        await feed_table.acquire(tx, ORDERS, "a", 60.0)
        assert await feed_table.save(tx, ORDERS, Progress(0, 20), "a", 60.0)
        await feed_actions.rewind(tx, ORDERS, 5, MARA)
        assert not await feed_table.save(tx, ORDERS, Progress(20, 30), "a", 60.0)
    assert await state(feed_database) == (FeedState.ACTIVE, 5)


@pytest.mark.parametrize("position", [-1, 8])
async def test_a_feed_is_not_rewound_to_where_it_has_not_been(feed_database, position):
    async with feed_database.transaction() as tx:
        await feed_table.acquire(tx, ORDERS, "a", 60.0)
        assert await feed_table.save(tx, ORDERS, Progress(0, 7), "a", 60.0)
    with pytest.raises(Conflict, match=r"is at position 7\. Give an earlier one"):
        async with feed_database.transaction() as tx:
            await feed_actions.rewind(tx, ORDERS, position, MARA)


async def test_a_stopped_feed_is_not_rewound(feed_database):
    await stop_orders(feed_database)
    with pytest.raises(Conflict, match="Retry or discard its event first"):
        async with feed_database.transaction() as tx:
            await feed_actions.rewind(tx, ORDERS, 0, MARA)


async def test_an_unknown_feed_is_not_found(feed_database):
    with pytest.raises(NotFound, match="no feed 'other'"):
        async with feed_database.transaction() as tx:
            await feed_actions.retry(tx, OTHER, MARA)
