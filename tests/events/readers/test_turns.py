"""Processes share projections: who joins gets a part, and nothing is applied twice or left out."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import select

from saga_engine.events.projections import projection_table
from saga_engine.events.readers.lease_share import Lease, share_of
from saga_engine.events.readers.lease_table import PROJECTION_LEASES
from saga_engine.events.readers.turns import MARGIN_SECONDS, Turns, next_look
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.schema import EVENT_DATABASE
from tests.kit.killed_process import KilledProcess
from tests.kit.programs import wait_until_true
from tests.kit.projections import append_one, placed, wait_for_position
from tests.kit.shared_projector import METADATA, NUMBER, PROJECTIONS


@pytest.fixture
async def database(event_url):
    async with Database(event_url, Settings(), EVENT_DATABASE) as database:
        async with database.transaction() as tx:
            await tx.connection.run_sync(METADATA.create_all)
        yield database


async def owners(database: Database) -> Counter[str | None]:
    async with database.transaction() as tx:
        return Counter(each.owner for each in await projection_table.read(tx))


async def wait_for_shares(database: Database, *shares: int) -> None:
    """Wait until so many processes run so many projections each."""

    async def are_reached() -> bool:
        found = await owners(database)
        return None not in found and sorted(found.values()) == sorted(shares)

    await wait_until_true(are_reached, interval=0.02)


async def test_processes_that_join_leave_and_are_killed_share_the_projections(
    events, event_url, database
):
    process = ("tests.kit.shared_projector", event_url)
    async with AsyncExitStack() as stack:

        async def join() -> KilledProcess:
            return await stack.enter_async_context(KilledProcess(*process))

        await join()
        await wait_for_shares(database, 6)
        await append_one(events, "order-1", *[placed()] * 10)
        second = await join()
        await wait_for_shares(database, 3, 3)
        await append_one(events, "order-1", *[placed()] * 10)
        third = await join()
        await wait_for_shares(database, 2, 2, 2)
        await append_one(events, "order-1", *[placed()] * 10)
        await second.kill()
        await wait_for_shares(database, 3, 3)
        await append_one(events, "order-1", *[placed()] * 10)
        await third.terminate()
        await wait_for_shares(database, 6)
        for n in range(NUMBER):
            await wait_for_position(database, f"count_{n}", await events.position())
    async with database.transaction() as tx:
        for projection in PROJECTIONS:
            (table,) = projection.tables
            assert (await tx.execute(select(table.c.orders))).scalar() == 40


async def test_what_is_added_later_is_looked_at_at_once(database):
    """The first projections are added after the first look, and a rebuild at any time."""
    async with database.transaction() as tx:
        await projection_table.register(tx, PROJECTIONS)
    errors: list[Exception] = []
    settings = Settings(projection_lease=3_600.0)
    turns, stop = Turns(PROJECTION_LEASES, database, "a", settings, errors.append), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(turns.run(stop))
        for n in range(NUMBER):
            await turns.add((f"count_{n}", "1")).wait()
        stop.set()
    assert not errors


async def test_no_turn_is_waited_for_after_a_process_was_stopped(database):
    """Also one that is asked for late: its projection was in a statement when `stop` was set."""
    errors: list[Exception] = []
    turns = Turns(PROJECTION_LEASES, database, "a", Settings(), errors.append)
    turn, stop = turns.add(("count_0", "1")), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(turns.run(stop))
        stop.set()
        await turn.wait()
    await turn.wait()
    await turns.add(("count_1", "1")).wait()
    await turn.hand_over()
    assert turn.end.is_set()
    assert not errors


@pytest.mark.parametrize(
    ("owner", "ends_in", "seconds"),
    [
        ("b", 4.0, 1.0),  # regularly
        ("b", 0.2, 0.2 + MARGIN_SECONDS),  # its owner does not renew it
        ("a", 0.2, 1.0),  # this process renews it itself
        (None, -0.1, 0.25),  # others may take it, or not
    ],
)
def test_a_look_is_in_time_for_the_end_of_a_lease(owner, ends_in, seconds):
    leases = [Lease(key=("p", "1"), owner=owner, ends_in=ends_in, wanted_by=None)]
    settings = Settings(projection_lease=3.0)
    share = share_of("a", leases, 1.0)
    assert next_look("a", leases, share, settings) == pytest.approx(seconds)
