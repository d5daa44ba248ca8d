"""Feed processes and a Kafka server that are killed: every event arrives, in order."""

import asyncio
from contextlib import AsyncExitStack
from random import Random

import pytest

from saga_engine.events.feeds import feed_table
from tests.kit.feeds import every_event, wait_for_feed
from tests.kit.kafka_feeds import TO_KAFKA
from tests.kit.kafka_topics import check_records, new_topic, read_topic
from tests.kit.killed_process import KilledProcess
from tests.kit.programs import sleep
from tests.kit.projections import append_orders
from tests.kit.servers import running_kafka


@pytest.mark.parametrize(("appends", "kills"), [(300, 4)])
@pytest.mark.timeout(600)
async def test_killed_processes_and_servers_lose_no_event_and_no_order(
    events, event_url, kafka_is_installed, feed_database, appends, kills
):
    """A third of the kills are of the server."""
    rng, topic = Random(appends), new_topic()
    async with feed_database.transaction() as tx:
        await feed_table.register(tx, [TO_KAFKA])
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(running_kafka())
        command = ("tests.kit.kafka_feed_process", event_url, server.servers, topic)
        processes = [await stack.enter_async_context(KilledProcess(*command)) for _ in range(2)]

        async def kill_often() -> None:
            for _ in range(kills):
                await sleep(rng.uniform(0.2, 2.0))
                if rng.random() < 1 / 3:
                    await server.crash()
                    await server.start()
                else:
                    await rng.choice(processes).restart()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(kill_often())
            tasks.create_task(append_orders(events, appends))
        await wait_for_feed(feed_database, await events.position(), TO_KAFKA.name)
        expected = await every_event(events)
        assert len(expected) > appends * 5
        check_records(await read_topic(server.servers, topic), expected)
