"""Tasks are cancelled anywhere in their way to a server: what they held is given back."""

import asyncio
from collections import Counter

import pytest
from sqlalchemy import text

from saga_engine.identifiers import uuid7
from saga_engine.protocol.message import Message, PublishOutcome
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from tests.kit.connections import open_publisher
from tests.kit.programs import sleep

PLACES, AT_ONCE = 60, 10
POOL = 4
PLACES_OF_A_WRITE = 4
"""Waits that a transaction has at the least: to begin, for three statements, to commit."""
PLACES_OF_A_PUBLISH = 1
"""It waits for its confirms."""
SETTINGS = Settings(database_pool_size=POOL)
ABANDONED = text(
    """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND (state LIKE 'idle in transaction%' OR state = 'active')"""
)
SESSIONS = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
WRITTEN = text("SELECT n, count(*) FROM written GROUP BY n")


class CancelledAwaitable:
    """
    Work whose task is cancelled where it waits for the n-th time (`place`, from 1; 0: never).

    `late`: when what it waits for is there, and before the task goes on; otherwise at once.
    """

    def __init__(self, work, place, *, late):
        self._work, self._await_index, self._after_result = work, place, late
        self._awaitable = 0
        self.was_cancelled = False

    def __await__(self):
        steps = self._work.__await__()
        error = None
        while True:
            try:
                waited = steps.send(None) if error is None else steps.throw(error)
            except StopIteration:
                return
            self._awaitable += 1
            if self._awaitable == self._await_index:
                self._cancel(waited)
            error = None
            try:
                yield waited
            except BaseException as raised:  # noqa: BLE001 - it is passed on
                error = raised

    def _cancel(self, waited):
        self.was_cancelled = True
        task = asyncio.current_task()
        assert task is not None
        if self._after_result and waited is not None:
            waited.add_done_callback(lambda _: task.cancel())
        else:
            asyncio.get_running_loop().call_soon(task.cancel)


async def cancel_at_each_await(work):
    """
    Begin it many times, some of them at once, and cancel each at a place of its own.

    One in AT_ONCE is never cancelled. How many places there are is found out, not assumed: the
    last ones are beyond the end. Returns how many were cancelled where they were cut.
    """
    ends = Counter[str]()
    for late in (False, True):
        for first in range(0, PLACES, AT_ONCE):
            cuts = [
                CancelledAwaitable(
                    work(first + number + late * PLACES), number and first + number, late=late
                )
                for number in range(AT_ONCE)
            ]
            tasks = [asyncio.ensure_future(passed_on(each)) for each in cuts]
            async with asyncio.timeout(300):
                await asyncio.wait(tasks)
            for cut, task in zip(cuts, tasks, strict=True):
                ends["cancelled" if task.cancelled() else "done"] += 1
                assert cut.was_cancelled or not task.cancelled(), (
                    "one was cancelled that was not cut"
                )
                if not task.cancelled():
                    task.result()
    assert ends["done"] >= 2 * PLACES / AT_ONCE
    return ends["cancelled"]


async def passed_on(cut):
    await cut


async def test_cancelled_transactions_leave_no_connection_taken_and_nothing_half_done(migrated_url):
    done = []
    async with Database(migrated_url, SETTINGS) as database, Database(migrated_url, SETTINGS) as we:
        async with we.transaction() as tx:
            await tx.execute(text("CREATE TABLE written (n int)"))

        async def write(number):
            async with database.transaction() as tx:
                for _ in range(3):
                    await tx.execute(text("INSERT INTO written VALUES (:n)"), {"n": number})
                    await sleep(0.0)  # between two statements one can be cut too
            done.append(number)

        assert await cancel_at_each_await(write) >= PLACES_OF_A_WRITE * 2
        await eventually_none(we, ABANDONED)
        async with asyncio.timeout(300), asyncio.TaskGroup() as group:
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
    async with asyncio.timeout(300):
        while True:
            async with database.transaction() as tx:
                if not (await tx.execute(question)).scalar_one():
                    return


@pytest.mark.rabbitmq
async def test_cancelled_publishes_leave_one_channel_that_works(rabbitmq, rabbitmq_url):
    def message():
        return Message(
            exchange="saga.commands",
            routing_key="tests.one",
            body=b"{}",
            message_id=str(uuid7()),
            type="tests.one",
        )

    async with open_publisher(rabbitmq_url) as publisher:

        async def publish(_):
            await publisher.publish([message() for _ in range(20)])

        assert await cancel_at_each_await(publish) >= PLACES_OF_A_PUBLISH * 2
        outcomes = await publisher.publish([message() for _ in range(50)])
        assert set(outcomes) == {PublishOutcome.CONFIRMED}

        async def channels():
            # what the server has, whatever the client believes
            listed = await rabbitmq.ctl("list_channels", "vhost")
            return listed.split().count(rabbitmq_url.rpartition("/")[2])

        async with asyncio.timeout(300):
            while await channels() != 1:
                pass
