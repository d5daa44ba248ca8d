"""How far projections and feeds are behind."""

import pytest

from saga_engine.events import Append, Events
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.feeds import feed_table
from saga_engine.events.feeds.feed_table import Progress
from saga_engine.events.projections import projection_table
from saga_engine.events.readers.lag import read_lags
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.event_database import connected, placed
from tests.kit.feeds import ORDERS
from tests.kit.projections import append_one

REGISTER = (
    "INSERT INTO saga_engine.projection (name, version, code_version, position)"
    " VALUES ($1, 1, 1, $2)"
)
MAKE_OLDER = "UPDATE saga_engine.stream_event SET recorded_at = recorded_at - interval '1 hour'"


async def lags(url, lineages):
    async with (
        Database(url, Settings(), lineages) as database,
        database.transaction() as tx,
    ):
        stored = await projection_table.read(tx)
        horizon, found = await read_lags(tx, await EventLog.load(tx), stored)
    return horizon, {each.stored.name: each for each in found}


async def test_lag_is_the_distance_to_the_horizon_and_the_age_of_the_next_event(events, event_url):
    await events.append(Append("order-1", [placed(n) for n in range(3)]))
    read = [each.position async for each in events.read_all()]
    async with connected(event_url) as other:
        await other.execute(MAKE_OLDER)
        for name, position in (("new", 0), ("behind", read[1]), ("current", read[2])):
            await other.execute(REGISTER, name, position)
    horizon, found = await lags(event_url, EVENT_DATABASE)
    assert horizon == read[2]
    assert {name: each.lag_events for name, each in found.items()} == {
        "new": horizon,
        "behind": 1,
        "current": 0,
    }
    assert found["new"].lag_seconds == pytest.approx(3600, abs=60)
    assert found["behind"].lag_seconds == pytest.approx(3600, abs=60)
    assert found["current"].lag_seconds == 0


async def test_an_event_above_the_horizon_is_not_late(events, event_url):
    async with connected(event_url) as other, connected(event_url) as registering:
        await registering.execute(REGISTER, "orders", 0)
        await registering.execute("SELECT nextval('saga_engine.event_position')")
        async with other.transaction():
            await other.execute("SELECT saga_engine.announce_positions()")
            await events.append(Append("order-1", [placed()]))
            _, found = await lags(event_url, EVENT_DATABASE)
    assert (found["orders"].lag_events, found["orders"].lag_seconds) == (1, 0)


async def test_positions_that_were_drawn_in_vain_are_no_lag_in_seconds(events, event_url):
    await events.append(Append("order-1", [placed()]))
    async with connected(event_url) as other:
        await other.execute(REGISTER, "orders", await events.position())
        await other.execute("SELECT nextval('saga_engine.event_position')")
    _, found = await lags(event_url, EVENT_DATABASE)
    assert (found["orders"].lag_events, found["orders"].lag_seconds) == (1, 0)


async def test_events_of_runs_count_in_the_database_of_the_engine(migrated_url):
    insert = """
        INSERT INTO saga_engine.journal (run_id, revision, recorded_at, position, events)
        SELECT gen_random_uuid(), 1, clock_timestamp() - interval '2 hours',
            saga_engine.draw_positions(1), '[{"type": "run_started", "data": {}}]'"""
    async with connected(migrated_url) as other, Events(migrated_url) as client:
        await other.execute(REGISTER, "runs", 0)
        await other.execute(insert)
        await client.append(Append("order-1", [placed()]))
    _, found = await lags(migrated_url, EVENT_DATABASE)
    assert found["runs"].lag_seconds == pytest.approx(7200, abs=60)


async def test_a_feed_lags_as_a_projection_does(events, feed_database):
    last = await append_one(events, "order-1", placed(), placed(), placed())
    async with feed_database.transaction() as tx:
        await feed_table.acquire(tx, ORDERS, "a", 60.0)
        assert await feed_table.save(tx, ORDERS, Progress(0, last - 2), "a", 60.0)
        stored = await feed_table.read(tx)
        horizon, (orders,) = await read_lags(tx, await EventLog.load(tx), stored)
    assert (orders.stored.name, orders.lag_events, horizon) == ("orders", 2, last)
    assert orders.lag_seconds > 0
