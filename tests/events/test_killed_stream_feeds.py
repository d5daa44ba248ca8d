"""Feeds to a stream that are killed, and RabbitMQ that is: each event is stored once, in order."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import pytest

from tests.kit.connections import FAST_RECONNECT
from tests.kit.feeds import every_event, running_feeds, wait_for_feed
from tests.kit.killed_process import KilledProcess
from tests.kit.programs import sleep
from tests.kit.projections import append_orders
from tests.kit.rabbitmq import RabbitMQServer
from tests.kit.streams import THREE, stored_messages, stream_feed, stream_url

pytestmark = pytest.mark.rabbitmq


@asynccontextmanager
async def killed_feeds(*urls: str) -> AsyncIterator[list[KilledProcess]]:
    """Two processes that run the feed."""
    async with AsyncExitStack() as stack:
        processes = [KilledProcess("tests.kit.stream_feed_process", *urls) for _ in range(2)]
        yield [await stack.enter_async_context(each) for each in processes]


async def kill_often(processes: Sequence[KilledProcess], rng: Random, kills: int) -> None:
    for _ in range(kills):
        await sleep(rng.uniform(0.2, 2.0))
        await rng.choice(processes).restart()


async def test_killed_processes_store_every_event_once(
    events, event_url, rabbitmq, rabbitmq_url, stream_database
):
    urls = (event_url, rabbitmq_url, stream_url(rabbitmq, rabbitmq_url))
    async with killed_feeds(*urls) as processes:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(kill_often(processes, Random(1), 4))
            tasks.create_task(append_orders(events, 300))
        await wait_for_feed(stream_database, await events.position())
    expected = await every_event(events)
    (await stored_messages(rabbitmq_url, *THREE, count=len(expected))).check(expected)


@pytest.mark.usefixtures("rabbitmq_is_installed")
async def test_no_event_is_lost_when_rabbitmq_is_killed(events, event_url, stream_database):
    async with RabbitMQServer() as server:
        settings = {**FAST_RECONNECT, "broker_stream_url": server.stream_url_of("/")}
        feed = stream_feed(partitions=3)
        async with running_feeds(event_url, server.url, [feed], **settings):
            await append_orders(events, 20)
            await wait_for_feed(stream_database, await events.position())
            await server.sync_metadata()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(append_orders(events, 100, seed=1))
                server.kill()
                await server.restart()
            await wait_for_feed(stream_database, await events.position())
        expected = await every_event(events)
        (await stored_messages(server.url, *THREE, count=len(expected))).check(expected)
