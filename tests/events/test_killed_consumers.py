"""Consumer processes that are killed apply every event once, in the order of its stream."""

import orjson
import pytest

from tests.kit.connections import raw_channel
from tests.kit.consumers import (
    billing_consumer,
    check_effects,
    consumer_database,
    running_consumers,
    wait_for_invoices,
)
from tests.kit.feeds import every_event, order_feed, running_feeds, wait_for_feed
from tests.kit.killed_process import killed_processes
from tests.kit.kills import killing
from tests.kit.projections import append_orders

pytestmark = [pytest.mark.rabbitmq, pytest.mark.long]


async def test_killed_processes_apply_every_event_once_and_in_order(
    events, event_url, rabbitmq_url, feed_database
):
    settings = orjson.dumps({"broker_url": rabbitmq_url}).decode()
    async with consumer_database(event_url) as billing:
        async with running_consumers(event_url, [billing_consumer()], broker_url=rabbitmq_url):
            pass  # it has declared its queue
        async with (
            running_feeds(event_url, rabbitmq_url, [order_feed()]),
            killed_processes(2, "tests.kit.consumer_process", event_url, settings) as processes,
        ):
            async with killing([each.restart for each in processes], 3, seed=1):
                await append_orders(events, 200)
            await wait_for_feed(feed_database, await events.position())
            expected = await every_event(events)
            assert len(expected) > 1_000
            await wait_for_invoices(billing, len(expected))
            await check_effects(billing, expected)
    async with raw_channel(rabbitmq_url) as channel:
        declared = await channel.queue_declare("saga.consumer.billing", passive=True)
        assert declared.message_count == 0
