"""Projector processes that are killed leave the tables as if each event were applied once."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from random import Random

import pytest

from tests.kit.killed_process import KilledProcess
from tests.kit.programs import sleep
from tests.kit.projections import (
    append_one,
    append_orders,
    check_read_model,
    placed,
    projection_database,
    rows,
    stored,
    wait_for_position,
)


@pytest.fixture
async def database(event_url):
    async with projection_database(event_url) as database:
        yield database


@pytest.mark.parametrize(
    ("appends", "kills"), [(300, 4), pytest.param(8_000, 60, marks=pytest.mark.long)]
)
@pytest.mark.timeout(600)
async def test_killed_processes_apply_each_event_once(events, event_url, database, appends, kills):
    """60 kills through 100,000 events, in the long one."""
    rng = Random(appends)

    async def kill_often(processes: Sequence[KilledProcess]) -> None:
        for _ in range(kills):
            await sleep(rng.uniform(0.2, 2.0))
            await rng.choice(processes).restart()

    async with AsyncExitStack() as stack:
        command = ("tests.kit.projector_process", event_url)
        processes = [await stack.enter_async_context(KilledProcess(*command)) for _ in range(2)]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(kill_often(processes))
            tasks.create_task(append_orders(events, appends))
        for name in ("orders", "history"):
            await wait_for_position(database, name, await events.position())
    read = [each async for each in events.read_all()]
    assert len(read) > appends * 5
    await check_read_model(database, read)
    history = [what for _, what in sorted(await rows(database, "order_history"))]
    assert history == [f"{e.stream} {e.data.get('customer', e.data.get('reason'))}" for e in read]


async def test_a_process_that_stands_still_longer_than_its_lease_changes_nothing_after_it(
    events, event_url, database
):
    """Another has taken over meanwhile, with a parked stream."""
    await append_one(events, "order-poison", placed("poison"))
    command = ("tests.kit.projector_process", event_url, "orders")
    async with KilledProcess(*command) as first:
        await wait_for_position(database, "orders", await events.position())
        owner = (await stored(database, "orders")).owner
        first.stop()
        await append_one(events, "order-poison", placed())
        await append_orders(events, 50)
        async with KilledProcess(*command):
            await wait_for_position(database, "orders", await events.position())
            assert (await stored(database, "orders")).owner not in (None, owner)
            first.go_on()
            await append_orders(events, 50, seed=1)
            await wait_for_position(database, "orders", await events.position())
    read = [each async for each in events.read_all()]
    await check_read_model(database, [each for each in read if each.stream != "order-poison"])
