"""Feed processes that are killed publish every event, in order, and repeat it with the same id."""

import orjson
import pytest

from tests.kit.connections import raw_channel
from tests.kit.feeds import bind_queue, every_event, receive_from, wait_for_feed
from tests.kit.killed_process import killed_processes
from tests.kit.kills import KILL_VARIANTS, PATIENCE, killing
from tests.kit.projections import append_orders

pytestmark = pytest.mark.rabbitmq


@pytest.mark.parametrize(("appends", "kills"), [(300, 4), *KILL_VARIANTS])
@pytest.mark.timeout(2 * PATIENCE)
async def test_killed_processes_publish_every_event_in_order(
    events, event_url, rabbitmq_url, feed_database, appends, kills
):
    settings = orjson.dumps({"broker_url": rabbitmq_url}).decode()
    async with raw_channel(rabbitmq_url) as channel:
        await bind_queue(channel, "billing", arguments={"x-queue-type": "quorum"})
        received = await receive_from(channel, "billing")
        async with (
            killed_processes(2, "tests.kit.feed_process", event_url, settings) as feeds,
            killing([each.restart for each in feeds], kills, appends) as killed,
        ):
            await append_orders(events, appends)
            await wait_for_feed(feed_database, await events.position(), patience=PATIENCE)
        expected = await every_event(events)
        assert len(expected) > appends * 5
        await received.wait_for(len(expected), patience=PATIENCE)
        received.check(expected)
    killed.report(
        "feed to an exchange", events=len(expected), repeated=len(received.ids) - len(expected)
    )
