"""Tasks are cancelled anywhere in their way to a server: what they held is given back."""

import asyncio
import random

import pytest
from sqlalchemy import text

from saga_engine.broker.wire import Message, Published
from saga_engine.identifiers import uuid7
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from tests.broker.links import publisher_to
from tests.faults.processes import lasting

TASKS, AT_ONCE = 300, 10
POOL = 4
LONGEST_S = 0.05  # By then about half of them would be over.
SETTINGS = Settings(database_pool=POOL)
ABANDONED = text(
    """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND (state LIKE 'idle in transaction%' OR state = 'active')"""
)
SESSIONS = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
WRITTEN = text("SELECT n, count(*) FROM written GROUP BY n")


async def cut_short(work):
    """Begin it some hundred times, and cancel each at a moment of its own; how many were."""
    chance = random.Random(57)
    cancelled = 0
    for first in range(0, TASKS, AT_ONCE):
        tasks = [asyncio.ensure_future(work(first + number)) for number in range(AT_ONCE)]
        for task in tasks:
            delay = chance.uniform(0, LONGEST_S)
            asyncio.get_running_loop().call_later(delay, task.cancel)
        await asyncio.wait(tasks)
        cancelled += sum(task.cancelled() for task in tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()
    return cancelled


async def test_cancelled_transactions_leave_no_connection_taken_and_nothing_half_done(migrated_url):
    done = []
    async with Database(migrated_url, SETTINGS) as database, Database(migrated_url, SETTINGS) as we:
        async with we.transaction() as tx:
            await tx.execute(text("CREATE TABLE written (n int)"))

        async def write(number):
            async with database.transaction() as tx:
                for _ in range(3):
                    await tx.execute(text("INSERT INTO written VALUES (:n)"), {"n": number})
                    await lasting(0.002)  # it thinks: between two statements one can be cut too
            done.append(number)

        cancelled = await cut_short(write)
        assert TASKS / 10 < cancelled < TASKS, "all or none were cancelled"
        await eventually_none(we, ABANDONED)
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            held = asyncio.Barrier(POOL)  # as many transactions at once as there are connections
            for _ in range(POOL):
                group.create_task(meet(database, held))
        async with we.transaction() as tx:
            assert (await tx.execute(SESSIONS)).scalar_one() <= POOL + 1
            rows = (await tx.execute(WRITTEN)).all()
            written = {row[0]: row[1] for row in rows}
    assert set(written.values()) == {3}
    assert written.keys() >= set(done)


async def meet(database, barrier):
    async with database.transaction() as tx:
        await tx.execute(text("SELECT 1"))
        await barrier.wait()


async def eventually_none(database, question):
    async with asyncio.timeout(10):
        while True:
            async with database.transaction() as tx:
                if not (await tx.execute(question)).scalar_one():
                    return


@pytest.mark.rabbitmq
async def test_cancelled_publishes_leave_one_channel_that_works(rabbitmq, rabbitmq_url):
    def message():
        return Message("saga.commands", "tests.one", b"{}", str(uuid7()), "tests.one")

    async with publisher_to(rabbitmq_url) as publisher:

        async def publish(_):
            await publisher.publish([message() for _ in range(20)])

        cancelled = await cut_short(publish)
        assert TASKS / 10 < cancelled < TASKS, "all or none were cancelled"
        outcomes = await publisher.publish([message() for _ in range(50)])
        assert set(outcomes) == {Published.CONFIRMED}

        async def channels():
            # what the server has, whatever the client believes
            listed = await rabbitmq.ctl("list_channels", "vhost")
            return listed.split().count(rabbitmq_url.rpartition("/")[2])

        async with asyncio.timeout(10):
            while await channels() != 1:
                pass
