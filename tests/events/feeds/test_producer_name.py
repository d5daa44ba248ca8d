"""What a feed publishes to a stream is not dropped when positions are given again."""

import asyncio
from contextlib import asynccontextmanager
from typing import Any

import pytest

from saga_engine.embedded.postgres import PostgresServer
from saga_engine.events import Events
from saga_engine.events.event_store.event_log import EventLog
from saga_engine.events.feeds import feed_table
from saga_engine.events.feeds.feed_table import FeedState
from saga_engine.events.feeds.producer_name import ProducerName
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.migrate import upgrade
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.event_database import connected
from tests.kit.feeds import every_event, running_feeds, wait_for_feed
from tests.kit.projections import append_one, append_orders, cancelled, placed
from tests.kit.servers import server_directory
from tests.kit.streams import (
    STREAM_ORDERS,
    stored_messages,
    stream_feed,
)

pytestmark = pytest.mark.rabbitmq


async def test_after_a_failover_that_lost_positions_no_event_is_dropped(
    rabbitmq_url, stream_settings
):
    """A standby is promoted without the last events; others get their positions."""
    with server_directory() as directory:
        standby = directory.parent / "standby"
        async with running_postgres_at(directory) as (server, url):
            await upgrade(url, EVENT_DATABASE)
            await append_and_publish(url, 5, 1, stream_settings)
        await copy_files(directory, standby)
        async with running_postgres_at(directory, create=False) as (_, url):
            lost = await append_and_publish(url, 5, 2, stream_settings)
        (standby / "data" / "standby.signal").touch()
        async with running_postgres_at(standby, create=False) as (server, url):
            async with connected(server.url) as connection:
                assert await connection.fetchval("SELECT pg_promote()")
            kept = await append_and_publish(url, 5, 3, stream_settings)
        assert {each.position for each in kept} >= {each.position for each in lost[-5:]}
        reader = await stored_messages(
            rabbitmq_url, "orders", count=len({each.id for each in [*lost, *kept]})
        )
        assert {str(each.id) for each in kept} <= set(reader.ids)


@asynccontextmanager
async def running_postgres_at(directory, *, create=True):
    """A server with its data in a directory, which is kept; the URL of its database of events."""
    async with PostgresServer(directory) as server:
        if create:
            await server.create_database("shop")
        yield server, server._database_url("shop")


async def copy_files(source, target):
    """Copy with owners."""
    copying = await asyncio.create_subprocess_exec("cp", "-a", source, target)
    assert await copying.wait() == 0


async def append_and_publish(url: str, number: int, seed: int, settings: dict[str, Any]):
    """Append, publish everything, and return all events."""
    broker_url = settings["broker_url"]
    others = {name: value for name, value in settings.items() if name != "broker_url"}
    async with (
        Events(url, settings=Settings()) as events,
        Database(url, Settings(), EVENT_DATABASE) as database,
    ):
        await append_orders(events, number, seed=seed)
        async with running_feeds(url, broker_url, [stream_feed()], **others):
            await wait_for_feed(database, await events.position())
        return await every_event(events)


async def test_a_restored_copy_of_the_database_has_a_producer_of_its_own(
    events, event_url, event_server, stream_database
):
    """Its positions are given to other events than those of the original."""
    async with stream_database.transaction() as tx:
        log = await EventLog.load(tx)
        name = ProducerName.of(stream_feed(), STREAM_ORDERS, log.id)
        original, position = await name.read(tx)
    assert position == 0
    assert original.startswith(f"orders.{log.id}.")
    assert len(original) <= 200
    copy = await event_server.create_database("copy_of_events")
    await upgrade(copy, EVENT_DATABASE)
    async with Database(copy, Settings(), EVENT_DATABASE) as database, database.transaction() as tx:
        assert (await name.read(tx))[0] != original
    await event_server.drop_database("copy_of_events")


async def test_a_feed_that_selects_more_events_stores_those_that_are_published_late(
    events, rabbitmq_url, stream_database, run_feed
):
    """Their ids are lower than others that the stream has."""
    await append_one(events, "order-1", cancelled(), placed())
    narrow, wide = stream_feed(), stream_feed()
    narrow.types = ["order-placed"]
    async with run_feed(narrow):
        await wait_for_feed(stream_database, await events.position())
    async with stream_database.transaction() as tx:
        await feed_table.set_state(tx, STREAM_ORDERS, FeedState.ACTIVE, 0)
    async with run_feed(wide):
        await wait_for_feed(stream_database, await events.position())
    await stored_messages(rabbitmq_url, "orders", count=2)
