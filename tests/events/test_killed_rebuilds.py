"""A rebuild or a switch that is killed at any step is repeated, and leaves nothing behind."""

from contextlib import suppress
from itertools import count
from random import Random

import pytest

from saga_engine.errors import StoreUnavailable
from saga_engine.events import Events
from saga_engine.events.projections.projection_switch import Switch
from saga_engine.events.projections.projection_table import ProjectionRole
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.event_database import connected
from tests.kit.killed_process import KilledProcess
from tests.kit.programs import sleep, wait_until_true
from tests.kit.projections import append_orders, check_read_model, projection_database
from tests.kit.proxy import running_proxy
from tests.kit.rebuilds import (
    MARA,
    SWITCH,
    all_events,
    begin,
    check_a_replay,
    rebuilt,
    relations,
    sql_rows,
    switch,
    versions,
    wait_for_all,
    wait_for_registration,
)

KILLS = 25

WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND query LIKE '%CREATE TABLE "order_by_id~2"%'"""


@pytest.fixture
async def database(event_url):
    async with projection_database(event_url) as database:
        yield database


@pytest.fixture
async def process(event_url, database):
    """A projector that has registered its projections, as a process."""
    async with KilledProcess("tests.kit.projector_process", event_url, "orders") as process:
        await wait_for_registration(database)
        yield process


async def test_a_process_is_killed_while_it_creates_the_tables(
    events, event_url, database, process
):
    await append_orders(events, 20)
    async with connected(event_url) as other:
        transaction = other.transaction()
        await transaction.start()
        await other.execute('CREATE TABLE "order_by_id~2" ()')  # the process waits for its end
        await begin(database)

        async def waits():
            return (await sql_rows(database, WAITING))[0][0]

        await wait_until_true(waits, interval=0.01)
        await process.restart()
        await transaction.rollback()
    await wait_for_all(database, await events.position())
    assert (await switch(database)).version == 2
    await check_read_model(database, await all_events(events))


@pytest.mark.long
async def test_a_process_is_killed_while_it_fills_the_tables(events, database, process):
    await append_orders(events, 100 * KILLS)
    await wait_for_all(database, await events.position())
    rng = Random(KILLS)
    await begin(database)
    for _ in range(KILLS):
        await sleep(rng.uniform(0.2, 0.9))
        await process.restart()
    await append_orders(events, 10, seed=1)
    await wait_for_all(database, await events.position())
    await switch(database)
    await check_read_model(database, await all_events(events))
    await check_a_replay(database, events)


def nth_request(number):
    """Whether a request is the one of that number, from 1."""
    numbers = count(1)
    return lambda _request: next(numbers) == number


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.long), 13])
@pytest.mark.timeout(300)
async def test_a_switch_is_cut_after_any_of_its_statements_and_repeated(tcp_url, step):
    """Also after its COMMIT. For the server a killed process is a lost connection."""
    cuts = 0
    async with (
        projection_database(tcp_url) as database,
        Events(tcp_url, settings=Settings()) as events,
        rebuilt(events, tcp_url, database),
        running_proxy(tcp_url) as proxy,
    ):
        names = {each for each in await relations(database) if "~" not in each}
        for done_before, number in enumerate(count(1, step)):
            target = (await versions(database))[ProjectionRole.REBUILD].version
            async with Database(proxy.url, Settings(), EVENT_DATABASE) as through_proxy:
                proxy.cut_before_answer(nth_request(number))
                with suppress(StoreUnavailable):
                    await Switch(through_proxy, Settings(), MARA).run("orders", SWITCH)
            cuts = proxy.lost_answers
            proxy.clear_faults()
            assert (await switch(database)).version == target
            assert names <= set(await relations(database))
            if cuts == done_before:
                break  # the switch has fewer requests
            await append_orders(events, 2, seed=number)
            await begin(database)
            await wait_for_all(database, await events.position())
        await check_read_model(database, await all_events(events))
        kept = {each.partition("~")[2] for each in await relations(database) if "~" in each}
    assert len(kept) == 1
    assert cuts > 40 // step
