"""Projector processes that are killed leave the tables as if each event were applied once."""

import pytest

from tests.kit.killed_process import KilledProcess, killed_processes
from tests.kit.kills import KILL_VARIANTS, PATIENCE, killing
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


@pytest.mark.parametrize(("appends", "kills"), KILL_VARIANTS)
@pytest.mark.timeout(2 * PATIENCE)
async def test_killed_processes_apply_each_event_once(events, event_url, database, appends, kills):
    async with (
        killed_processes(2, "tests.kit.projector_process", event_url) as processes,
        killing([each.restart for each in processes], kills, appends) as killed,
    ):
        await append_orders(events, appends)
        for name in ("orders", "history"):
            position = await events.position()
            await wait_for_position(database, name, position, patience=PATIENCE)
    read = [each async for each in events.read_all()]
    assert len(read) > appends * 5
    await check_read_model(database, read)
    history = [what for _, what in sorted(await rows(database, "order_history"))]
    assert history == [f"{e.stream} {e.data.get('customer', e.data.get('reason'))}" for e in read]
    killed.report("projections", events=len(read))


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
