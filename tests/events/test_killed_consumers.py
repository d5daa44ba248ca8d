"""Consumer processes that are killed apply every event once, in the order of its stream."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from random import Random

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
from tests.kit.killed_process import KilledProcess
from tests.kit.programs import sleep
from tests.kit.projections import append_orders

pytestmark = pytest.mark.rabbitmq


@pytest.mark.parametrize(
    ("appends", "kills"), [(200, 3), pytest.param(2_000, 30, marks=pytest.mark.long)]
)
@pytest.mark.timeout(600)
async def test_killed_processes_apply_every_event_once_and_in_order(
    events, event_url, rabbitmq_url, feed_database, appends, kills
):
    rng = Random(appends)

    async def kill_often(processes: Sequence[KilledProcess]) -> None:
        for _ in range(kills):
            await sleep(rng.uniform(0.2, 2.0))
            await rng.choice(processes).restart()

    async with consumer_database(event_url) as billing, AsyncExitStack() as stack:
        async with running_consumers(event_url, [billing_consumer()], broker_url=rabbitmq_url):
            pass  # it has declared its queue
        await stack.enter_async_context(running_feeds(event_url, rabbitmq_url, [order_feed()]))
        command = ("tests.kit.consumer_process", event_url, rabbitmq_url)
        processes = [await stack.enter_async_context(KilledProcess(*command)) for _ in range(2)]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(kill_often(processes))
            tasks.create_task(append_orders(events, appends))
        await wait_for_feed(feed_database, await events.position())
        expected = await every_event(events)
        assert len(expected) > appends * 5
        await wait_for_invoices(billing, len(expected))
        await check_effects(billing, expected)
    async with raw_channel(rabbitmq_url) as channel:
        declared = await channel.queue_declare("saga.consumer.billing", passive=True)
        assert declared.message_count == 0
