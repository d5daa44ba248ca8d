"""Feeds to a stream that are killed, and RabbitMQ that is: each event is stored once, in order."""

import asyncio

import orjson
import pytest

from tests.kit.connections import FAST_RECONNECT
from tests.kit.feeds import every_event, running_feeds, wait_for_feed
from tests.kit.killed_process import killed_processes
from tests.kit.kills import killing
from tests.kit.projections import append_orders
from tests.kit.rabbitmq import RabbitMQServer
from tests.kit.streams import THREE, stored_messages, stream_feed, stream_url

pytestmark = [pytest.mark.rabbitmq, pytest.mark.long]


async def test_killed_processes_store_every_event_once(
    events, event_url, rabbitmq, rabbitmq_url, stream_database
):
    urls = {
        "broker_url": rabbitmq_url,
        "broker_stream_url": stream_url(rabbitmq, rabbitmq_url),
    }
    command = (event_url, orjson.dumps(urls).decode(), "stream", "orders")
    async with killed_processes(2, "tests.kit.feed_process", *command) as processes:
        async with killing([each.restart for each in processes], 4, seed=1):
            await append_orders(events, 300)
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
