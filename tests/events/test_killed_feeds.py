"""Feed processes that are killed publish every event, in order, and repeat it with the same id."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from random import Random

import pytest

from tests.kit.connections import raw_channel
from tests.kit.feeds import bind_queue, every_event, receive_from, wait_for_feed
from tests.kit.killed_process import KilledProcess
from tests.kit.programs import sleep
from tests.kit.projections import append_orders

pytestmark = pytest.mark.rabbitmq

PATIENCE = 240.0  # Seconds: 100,000 events are many for a loaded machine.


@pytest.mark.parametrize(
    ("appends", "kills"), [(300, 4), pytest.param(8_000, 60, marks=pytest.mark.long)]
)
@pytest.mark.timeout(600)
async def test_killed_processes_publish_every_event_in_order(
    events, event_url, rabbitmq_url, feed_database, appends, kills
):
    """60 kills through 100,000 events, in the long one."""
    rng = Random(appends)

    async def kill_often(processes: Sequence[KilledProcess]) -> None:
        for _ in range(kills):
            await sleep(rng.uniform(0.2, 2.0))
            await rng.choice(processes).restart()

    async with raw_channel(rabbitmq_url) as channel:
        await bind_queue(channel, "billing", arguments={"x-queue-type": "quorum"})
        received = await receive_from(channel, "billing")
        async with AsyncExitStack() as stack:
            command = ("tests.kit.feed_process", event_url, rabbitmq_url)
            processes = [await stack.enter_async_context(KilledProcess(*command)) for _ in range(2)]
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(kill_often(processes))
                tasks.create_task(append_orders(events, appends))
            await wait_for_feed(feed_database, await events.position(), patience=PATIENCE)
        expected = await every_event(events)
        assert len(expected) > appends * 5
        await received.wait_for(len(expected), patience=PATIENCE)
        received.check(expected)
