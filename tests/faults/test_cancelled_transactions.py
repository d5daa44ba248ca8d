"""Tasks that are cancelled at any await give their connections and channels back."""

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

AWAITS, CONCURRENCY = 60, 10
POOL = 4
AWAITS_OF_A_WRITE = 4
"""A transaction awaits at least its BEGIN, three statements and its COMMIT."""
AWAITS_OF_A_PUBLISH = 1
"""A publish awaits its confirms."""
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
    Work whose task is cancelled at its n-th await (`await_index`, from 1; 0: never).

    `after_result`: it is cancelled when the awaited result is there, before the task continues;
    otherwise immediately.
    """

    def __init__(self, work, await_index, *, after_result):
        self._work, self._await_index, self._after_result = work, await_index, after_result
        self._await_count = 0
        self.was_cancelled = False

    def __await__(self):
        steps = self._work.__await__()
        error = None
        while True:
            try:
                waited = steps.send(None) if error is None else steps.throw(error)
            except StopIteration:
                return
            self._await_count += 1
            if self._await_count == self._await_index:
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
    Run the work many times, concurrently, and cancel each at a different await.

    One in CONCURRENCY is never cancelled. The number of awaits is not assumed: the last indexes are
    beyond the end. Returns how many were cancelled.
    """
    ends = Counter[str]()
    for after_result in (False, True):
        for first in range(0, AWAITS, CONCURRENCY):
            works = [
                CancelledAwaitable(
                    work(first + number + after_result * AWAITS),
                    number and first + number,
                    after_result=after_result,
                )
                for number in range(CONCURRENCY)
            ]
            tasks = [asyncio.ensure_future(run_work(each)) for each in works]
            async with asyncio.timeout(300):
                await asyncio.wait(tasks)
            for work_item, task in zip(works, tasks, strict=True):
                ends["cancelled" if task.cancelled() else "done"] += 1
                assert work_item.was_cancelled or not task.cancelled(), (
                    "a task was cancelled that this test did not cancel"
                )
                if not task.cancelled():
                    task.result()
    assert ends["done"] >= 2 * AWAITS / CONCURRENCY
    return ends["cancelled"]


async def run_work(work):
    await work


async def test_cancelled_transactions_leave_no_open_connection_and_no_partial_write(migrated_url):
    done = []
    async with (
        Database(migrated_url, SETTINGS) as database,
        Database(migrated_url, SETTINGS) as own,
    ):
        async with own.transaction() as tx:
            await tx.execute(text("CREATE TABLE written (n int)"))

        async def write(number):
            async with database.transaction() as tx:
                for _ in range(3):
                    await tx.execute(text("INSERT INTO written VALUES (:n)"), {"n": number})
                    await sleep(0.0)  # a task may be cancelled between two statements too
            done.append(number)

        assert await cancel_at_each_await(write) >= AWAITS_OF_A_WRITE * 2
        await wait_for_zero(own, ABANDONED)
        async with asyncio.timeout(300), asyncio.TaskGroup() as group:
            all_open = asyncio.Barrier(POOL)  # as many transactions as there are connections
            for _ in range(POOL):
                group.create_task(open_transaction(database, all_open))
        async with own.transaction() as tx:
            assert (await tx.execute(SESSIONS)).scalar_one() <= POOL + 1
            rows = (await tx.execute(WRITTEN)).all()
            written = {row[0]: row[1] for row in rows}
    assert set(written.values()) == {3}
    assert written.keys() >= set(done)


async def open_transaction(database, barrier):
    async with database.transaction() as tx:
        await tx.execute(text("SELECT 1"))
        await barrier.wait()


async def wait_for_zero(database, query):
    async with asyncio.timeout(300):
        while True:
            async with database.transaction() as tx:
                if not (await tx.execute(query)).scalar_one():
                    return


@pytest.mark.rabbitmq
async def test_cancelled_publishes_leave_one_working_channel(rabbitmq, rabbitmq_url):
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

        assert await cancel_at_each_await(publish) >= AWAITS_OF_A_PUBLISH * 2
        outcomes = await publisher.publish([message() for _ in range(50)])
        assert set(outcomes) == {PublishOutcome.CONFIRMED}

        async def channel_count():
            # the channels of the server, not those that the client knows
            listed = await rabbitmq.rabbitmqctl("list_channels", "vhost")
            return listed.split().count(rabbitmq_url.rpartition("/")[2])

        async with asyncio.timeout(300):
            while await channel_count() != 1:
                pass
