"""When the process of a feed is killed, another one continues; no event is lost or out of order."""

from collections import Counter
from contextlib import AsyncExitStack

import orjson
import pytest

from saga_engine.events.feeds import feed_table
from tests.kit.command_line import read_log_until, running_command
from tests.kit.connections import raw_channel
from tests.kit.feeds import bind_queue, every_event, receive_from
from tests.kit.killed_process import killed_processes
from tests.kit.programs import wait_until_true
from tests.kit.projections import append_one, cancelled, placed
from tests.kit.shared_feeds_module import CATEGORIES
from tests.kit.webhook_receiver import ACCEPT, respond
from tests.kit.webhooks import FAST_RETRIES, stored_webhook, wait_for_waiting

pytestmark = pytest.mark.long

MODULE = "tests.kit.shared_feeds_module"


async def owners(database):
    """How many feeds each process runs, by its process id; None: no process."""
    async with database.transaction() as tx:
        found = await feed_table.read(tx)
    return Counter(int(each.owner.split(":")[-2]) if each.owner else None for each in found)


async def wait_for_owners(database, expected):
    """Wait until processes have so many feeds each."""

    async def found():
        return await owners(database) == Counter(expected)

    await wait_until_true(found, interval=0.02)


async def append_to_all(events):
    for category in CATEGORIES:
        for number in range(3):
            await append_one(events, f"{category}-{number}", placed(), cancelled())


@pytest.mark.rabbitmq
async def test_a_projector_takes_over_the_feeds_of_one_that_is_killed(
    events, event_url, rabbitmq_url, feed_database
):
    settings = {
        "database_url": event_url,
        "broker_url": rabbitmq_url,
        "projection_lease": "0.6",
        "event_poll_interval_max": "0.05",
    }
    async with raw_channel(rabbitmq_url) as channel, AsyncExitStack() as stack:
        await bind_queue(channel, "billing")
        received = await receive_from(channel, "billing")
        first, second = [
            await stack.enter_async_context(
                running_command("projector", MODULE, "--port", "0", **settings)
            )
            for _ in range(2)
        ]
        for each in (first, second):
            await read_log_until(each, "process.ready")
        await wait_for_owners(feed_database, {first.pid: 2, second.pid: 2})
        await append_to_all(events)
        await received.wait_for(8)
        first.kill()
        await append_to_all(events)
        await wait_for_owners(feed_database, {second.pid: 4})
        await append_to_all(events)
        expected = await every_event(events)
        await received.wait_for(len(expected))
    received.check(expected)


async def test_when_the_owner_of_a_webhook_is_killed_another_process_delivers_what_waits(
    events, event_url, receiver, webhook_database
):
    receiver.behave = lambda each: respond(500) if each.stream == "order-1" else ACCEPT
    settings = orjson.dumps(FAST_RETRIES).decode()
    command = ("tests.kit.feed_process", event_url, settings, "webhook", receiver.url)
    async with killed_processes(2, *command) as processes:
        await append_one(events, "order-1", placed(), cancelled())
        await append_one(events, "order-2", placed())
        await receiver.wait_for(1)
        await wait_for_waiting(webhook_database, 1)
        owner = (await stored_webhook(webhook_database)).owner or ""
        [killed] = [each for each in processes if f":{each.pid}:" in owner]
        await killed.kill()
        receiver.behave = lambda _: ACCEPT
        await append_one(events, "order-1", placed())
        await append_one(events, "order-2", cancelled())
        await receiver.wait_for(5)
        await wait_for_waiting(webhook_database, 0)
    receiver.check(await every_event(events))
