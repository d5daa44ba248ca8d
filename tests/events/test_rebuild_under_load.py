"""Readers notice nothing of a rebuild and a switch, however fast events are appended."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from saga_engine.events import ANY, Append, EventData
from tests.kit.killed_process import KilledProcess
from tests.kit.programs import sleep
from tests.kit.projections import (
    append_orders,
    check_read_model,
    projection_database,
    random_events,
)
from tests.kit.rebuilds import (
    BACK,
    all_events,
    begin,
    check_a_replay,
    switch,
    wait_for_all,
    wait_for_registration,
    wait_until_ready,
)

READ = (
    "SELECT (SELECT sum(orders) FROM orders_by_customer),"
    " (SELECT count(*) FROM order_by_id WHERE {} < 3)"
)
WRITERS, PAUSE = 4, 0.08
SLOW_DOWN_AFTER = 8.0


class Load:
    """Appends events and reads tables until it is stopped."""

    def __init__(self, events, rate):
        self.events, self.rate = events, rate
        self.stop = asyncio.Event()
        self.turns = asyncio.Semaphore(0)
        self.appended = self.reads = 0

    async def pace(self):
        """Let the writers append; those that were late have no pause."""
        while not self.stop.is_set():
            await sleep(PAUSE)
            for _ in range(WRITERS):
                self.turns.release()

    async def append(self, writer):
        """One of the writers, with streams of its own."""
        rng = Random(writer)
        streams = [f"order-{writer}-{number}" for number in range(10)]
        while not self.stop.is_set():
            await self.turns.acquire()
            by_stream: dict[str, list[EventData]] = {}
            number = 0
            while number < self.rate * PAUSE / WRITERS:
                data = random_events(rng)
                by_stream.setdefault(rng.choice(streams), []).extend(data)
                number += len(data)
            await self.events.append(*(Append(*each, ANY) for each in by_stream.items()))
            self.appended += number

    async def slow_down(self):
        """Append half as much from time to time: a slow machine has to catch up, too."""
        rate = self.rate
        while True:
            await sleep(SLOW_DOWN_AFTER)
            self.rate = max(self.rate / 2, rate / 32)

    @asynccontextmanager
    async def slowing_down(self, tasks):
        """Slow down in the block, and append as fast as before after it."""
        rate, task = self.rate, tasks.create_task(self.slow_down())
        yield
        task.cancel()
        self.rate = rate

    async def read(self, engine, reader):
        """No read fails, and none sees less than the one before; statements are cached and new."""
        orders = rows = 0
        async with engine.connect() as connection:
            while not self.stop.is_set():
                query = READ.format(self.reads % 3 if reader else 0)
                before = orders, rows
                orders, rows = (await connection.exec_driver_sql(query)).one()
                await connection.commit()
                assert orders >= before[0] > -1
                assert rows >= before[1]
                self.reads += 1


@pytest.mark.parametrize(
    ("rate", "switches"),
    [(300, 1), pytest.param(1_000, 2, marks=pytest.mark.long)],
)
@pytest.mark.timeout(300)
async def test_readers_notice_nothing_of_rebuilds_and_switches(events, event_url, rate, switches):
    await append_orders(events, 200)
    load = Load(events, rate)
    engine = create_async_engine(event_url.replace("postgresql://", "postgresql+asyncpg://"))
    async with projection_database(event_url) as database, AsyncExitStack() as stack:
        stack.push_async_callback(engine.dispose)
        for _ in range(2):
            process = KilledProcess("tests.kit.projector_process", event_url, "orders")
            await stack.enter_async_context(process)
        await wait_for_registration(database)
        await wait_for_all(database, await events.position())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(load.pace())
            for writer in range(WRITERS):
                tasks.create_task(load.append(writer))
            for reader in range(3):
                tasks.create_task(load.read(engine, reader))
            for _ in range(switches):
                await begin(database)
                async with load.slowing_down(tasks):
                    await wait_until_ready(database)
                await switch(database)
                await switch(database, BACK)
                await switch(database)
            load.stop.set()
        await wait_for_all(database, await events.position())
        await check_read_model(database, await all_events(events))
        await check_a_replay(database, events)
    assert load.reads > 50
