"""One look at the horizon wakes every projection that waits for it."""

import asyncio

import pytest

from saga_engine.events import Events
from saga_engine.events.readers.horizon_watch import HorizonWatch
from saga_engine.events.readers.owned_loop import MAX_RETRY_DELAY, OwnedLoop
from saga_engine.events.readers.sql_event_store import SqlEventStore
from saga_engine.settings import Settings
from saga_engine.telemetry.events import DatabaseUnavailable
from saga_engine.telemetry.operations import Operation
from tests.kit.event_database import connected
from tests.kit.events import EventRecorder
from tests.kit.projections import append_one, placed, projection_database

END_OTHER_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND datname = current_database()"""


class CountedLooks(SqlEventStore):
    """Counts the transactions that are opened."""

    number = 0

    def transaction(self):
        self.number += 1
        return super().transaction()


@pytest.fixture
async def database(event_url):
    async with projection_database(event_url) as database:
        yield database


async def test_all_that_wait_are_woken_when_it_moves(events, database):
    settings, stop = Settings(event_poll_interval=0.001), asyncio.Event()
    watch = HorizonWatch(SqlEventStore(database), settings)
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(watch.wait_beyond(0, 60.0)) for _ in range(3)]
        running = tasks.create_task(watch.run(stop))
        position = await append_one(events, "order-1", placed())
        assert [await each for each in waiting] == [True, True, True]
        stop.set()
        await running
    assert watch.position == position
    assert not await watch.wait_beyond(position, 0.001)


async def test_a_look_that_failed_is_repeated_soon(event_url, database):
    """All projections of the process wait for it."""
    settings = Settings(event_poll_interval=0.001, event_poll_interval_max=0.01)
    watch, stop, emitted = (
        HorizonWatch(SqlEventStore(database), settings),
        asyncio.Event(),
        EventRecorder(),
    )
    loop = OwnedLoop(Operation.PROJECTION, settings, emitted)
    async with asyncio.TaskGroup() as tasks, connected(event_url) as other:
        running = tasks.create_task(loop.watch(watch, stop))
        async with Events(event_url) as before:
            await watch.wait_beyond(await append_one(before, "order-1", placed()) - 1, 60.0)
        await other.execute(END_OTHER_SESSIONS)
        await emitted.wait_for(DatabaseUnavailable)
        async with Events(event_url) as after:
            position = await append_one(after, "order-1", placed())
        assert await watch.wait_beyond(position - 1, MAX_RETRY_DELAY / 2)
        stop.set()
        await running


async def test_looks_are_rare_while_no_task_waits(events, database):
    """A feed publishes a batch, and lets events gather: looks meanwhile would be for nothing."""
    settings, stop = (
        Settings(event_poll_interval=0.001, event_poll_interval_max=60.0),
        asyncio.Event(),
    )
    looks = CountedLooks(database)
    watch = HorizonWatch(looks, settings)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(watch.run(stop))
        position = await append_one(events, "order-1", placed())
        assert await watch.wait_beyond(position - 1, 60.0)
        number = looks.number
        for _ in range(10):
            position = await append_one(events, "order-1", placed())
        assert looks.number - number <= 1
        assert await watch.wait_beyond(position - 1, 60.0)
        stop.set()
        await running


async def test_a_look_reports_whether_it_has_moved(events, database):
    watch = HorizonWatch(SqlEventStore(database), Settings())
    assert not await watch.look()
    await append_one(events, "order-1", placed())
    assert await watch.look()
    assert not await watch.look()


async def test_a_lower_horizon_is_known(events, database, event_url):
    """A standby that is promoted may lack the last positions."""
    watch = HorizonWatch(SqlEventStore(database), Settings())
    await append_one(events, "order-1", placed(), placed())
    await watch.look()
    async with connected(event_url) as other:
        await other.execute("SELECT setval('saga_engine.event_position', 1)")
    assert await watch.look()
    assert watch.position == 1
