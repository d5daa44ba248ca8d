"""Webhook processes that are killed send every event, in order, and repeat it with the same id."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from random import Random

import pytest

from tests.kit.feeds import every_event
from tests.kit.killed_process import KilledProcess
from tests.kit.programs import sleep, wait_until_true
from tests.kit.projections import append_orders
from tests.kit.webhook_receiver import ACCEPT, reset, respond
from tests.kit.webhooks import stored_webhook, wait_for_waiting


@pytest.mark.parametrize(
    ("appends", "kills"), [(80, 2), pytest.param(400, 10, marks=pytest.mark.long)]
)
async def test_killed_processes_send_every_event_in_order(
    events, event_url, receiver, webhook_database, appends, kills
):
    """One request in ten is refused or reset, so streams wait while processes are killed."""
    rng = Random(appends)
    receiver.behave = lambda _: rng.choice([reset, respond(500)] + [ACCEPT] * 18)

    async def kill_often(processes: Sequence[KilledProcess]) -> None:
        for _ in range(kills):
            await sleep(rng.uniform(0.2, 2.0))
            await rng.choice(processes).restart()

    async def caught_up() -> bool:
        stored = await stored_webhook(webhook_database)
        return stored.position >= int(await events.position())

    async with AsyncExitStack() as stack:
        command = ("tests.kit.webhook_feed_process", event_url, receiver.url)
        processes = [await stack.enter_async_context(KilledProcess(*command)) for _ in range(2)]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(kill_often(processes))
            tasks.create_task(append_orders(events, appends))
        await wait_until_true(caught_up, patience=100)
        await wait_for_waiting(webhook_database, 0)
    receiver.check(await every_event(events))
