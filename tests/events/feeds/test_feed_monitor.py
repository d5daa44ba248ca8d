"""A feed that does not move is a problem of its process, unless it waits for its sink."""

import pytest

from saga_engine.telemetry.events import FeedEventsPassed, FeedsMeasured, FeedsRegistered
from tests.kit.connections import raw_channel
from tests.kit.event_database import connected
from tests.kit.feeds import bind_queue, order_feed, wait_for_feed
from tests.kit.programs import wait_until_true
from tests.kit.projections import append_one, append_orders, cancelled, placed, projection_database
from tests.kit.projector_service import running_service

ORDERS = ("orders", "exchange")


@pytest.fixture(autouse=True)
async def tables(event_url):
    """Of the projection that the service runs, too."""
    async with projection_database(event_url):
        yield


async def feed_problem(service):
    return (await service.readiness())["feeds"]


async def test_it_is_not_ready_while_a_feed_cannot_move(
    events, event_url, feed_database, development_broker
):
    limits = {"projection_stall_timeout": 0.2, "database_lock_timeout": 0.1}
    feeds, broker = [order_feed()], development_broker.url
    async with running_service(event_url, feeds=feeds, broker_url=broker, **limits) as (service, _):
        await wait_for_feed(feed_database, await append_one(events, "order-1", placed()))

        async def is_stalled():
            return await feed_problem(service) is not None

        async with connected(event_url) as other, other.transaction():
            await other.execute("SELECT FROM saga_engine.feed FOR UPDATE")
            position = await append_one(events, "order-2", placed())
            await wait_until_true(is_stalled, interval=0.05)
            assert "feed orders (exchange) has been at position" in await feed_problem(service)
        await wait_for_feed(feed_database, position)

        async def has_recovered():
            return not await is_stalled()

        await wait_until_true(has_recovered, interval=0.05)


async def test_it_is_not_ready_without_the_row_of_a_feed(
    event_url, feed_database, development_broker
):
    """No process publishes it any more."""
    feeds, broker = [order_feed()], development_broker.url
    async with running_service(event_url, feeds=feeds, broker_url=broker) as (service, sent):
        await sent.wait_for(FeedsMeasured)
        async with connected(event_url) as other:
            await other.execute("DELETE FROM saga_engine.feed")

        async def is_missing():
            return "(exchange) is no longer in the database" in (await feed_problem(service) or "")

        await wait_until_true(is_missing, interval=0.05)


@pytest.mark.rabbitmq
async def test_a_feed_that_waits_for_a_full_queue_leaves_it_ready(
    events, event_url, feed_database, rabbitmq_url
):
    limits = {"x-max-length": 1, "x-overflow": "reject-publish", "x-queue-type": "classic"}
    settings = {"projection_stall_timeout": 0.1, "broker_url": rabbitmq_url}
    async with raw_channel(rabbitmq_url) as channel:
        await bind_queue(channel, "full", arguments=limits)
        await append_orders(events, 4)
        async with running_service(event_url, feeds=[order_feed()], **settings) as (service, sent):
            waiting = {"states": {ORDERS: "active"}, "waiting_for_sink": (ORDERS,)}
            for measured in range(1, 30):
                await sent.wait_for(FeedsMeasured, measured, **waiting)
                assert await feed_problem(service) is None
            assert sent.matching(FeedsMeasured)[-1].lag_events[ORDERS] > 0
            await channel.queue_delete("full")
            await wait_for_feed(feed_database, await events.position())


async def test_events_that_a_feed_publishes_and_skips_are_counted(
    events, event_url, feed_database, development_broker
):
    broker = development_broker.url
    async with raw_channel(broker) as channel:
        await bind_queue(channel, "billing", "*.order-placed")
        await append_one(events, "order-1", placed())
        last = await append_one(events, "order-1", cancelled())
        async with running_service(event_url, feeds=[order_feed()], broker_url=broker) as (_, sent):
            await wait_for_feed(feed_database, last)
            await sent.wait_for(FeedsMeasured, lag_events={ORDERS: 0}, lag_s={ORDERS: 0.0})
    assert sent.matching(FeedsRegistered) == [FeedsRegistered(feeds=(ORDERS,))]
    passed = sent.matching(FeedEventsPassed)
    assert sum(each.published for each in passed) == 1
    assert sum(each.skipped for each in passed) == 1
