"""Webhook processes that are killed send every event, in order, and repeat it with the same id."""

from random import Random

import orjson
import pytest

from tests.kit.feeds import every_event, wait_for_feed
from tests.kit.killed_process import killed_processes
from tests.kit.kills import MANY_APPENDS, PATIENCE, THROUGHOUT, killing
from tests.kit.projections import append_orders
from tests.kit.webhook_receiver import ACCEPT, reset, respond
from tests.kit.webhooks import FAST_RETRIES, wait_for_waiting

SETTINGS = orjson.dumps(FAST_RETRIES).decode()


@pytest.mark.parametrize(
    ("appends", "kills"),
    [
        pytest.param(200, 4, marks=pytest.mark.long),  # each event is a request of its own
        pytest.param(MANY_APPENDS, THROUGHOUT, marks=pytest.mark.kills),
    ],
)
@pytest.mark.timeout(2 * PATIENCE)
async def test_killed_processes_send_every_event_in_order(
    events, event_url, receiver, webhook_database, appends, kills
):
    """One request in ten is refused or reset, so streams wait while processes are killed."""
    rng = Random(appends)
    receiver.behave = lambda _: rng.choice([reset, respond(500)] + [ACCEPT] * 18)
    command = ("tests.kit.feed_process", event_url, SETTINGS, "webhook", receiver.url)
    async with (
        killed_processes(2, *command) as processes,
        killing([each.restart for each in processes], kills, appends) as killed,
    ):
        await append_orders(events, appends)
        await wait_for_feed(webhook_database, await events.position(), patience=PATIENCE)
        await wait_for_waiting(webhook_database, 0, patience=PATIENCE)
    expected = await every_event(events)
    receiver.check(expected)
    killed.report(
        "feed to a webhook", events=len(expected), repeated=len(receiver.accepted) - len(expected)
    )
