"""A simulated process that stands still has no effect, keeps its locks for a while, and goes on."""

import asyncio

import pytest

from saga_engine.errors import StoreUnavailable
from simulation import virtual_time
from simulation.faults import Fault, FaultInjector, FaultKind, FaultPoint, seeded_random
from simulation.memory_client import IDLE_TIMEOUT_S, MemoryDatabaseClient
from simulation.memory_database import MemoryDatabase, MemoryTransaction
from simulation.process import SimulatedProcess

LONG, SHORT = 2 * IDLE_TIMEOUT_S, IDLE_TIMEOUT_S / 2


def frozen_at(point_number, seconds, *, can_crash=True):
    faults = FaultInjector(planned=[Fault(point_number, FaultKind.FREEZE, seconds)])
    rng = seeded_random(0, "network")
    return SimulatedProcess("frozen", faults, rng, can_crash=can_crash)


def running():
    return SimulatedProcess("running", FaultInjector(), seeded_random(0, "network"))


async def lock_a_row(tx: MemoryTransaction):
    async with tx.statement():
        await tx.lock("run", "a")


def now():
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize(("can_crash", "seconds"), [(True, LONG), (False, 0.0)])
def test_no_task_of_a_process_passes_a_point_while_it_stands_still(can_crash, seconds):
    passed = []

    async def pass_points(process):
        for _ in range(3):
            assert await process.pass_point(FaultPoint.PUBLISH) is None
            passed.append(now())

    async def main():
        process = frozen_at(0, LONG, can_crash=can_crash)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(2):
                tasks.create_task(pass_points(process))

    virtual_time.run(main())
    assert len(passed) == 6
    assert min(passed) >= seconds
    assert max(passed) < seconds + 1


@pytest.mark.parametrize(("seconds", "released_after"), [(LONG, IDLE_TIMEOUT_S), (SHORT, SHORT)])
def test_the_server_ends_a_transaction_of_a_process_that_stands_still_for_long(
    seconds, released_after
):
    database = MemoryDatabase()
    process = frozen_at(1, seconds)
    begin = MemoryDatabaseClient(database, process, MemoryTransaction).transaction
    begin_other = MemoryDatabaseClient(database, running(), MemoryTransaction).transaction
    locked_at = []

    async def lock_after(locked: asyncio.Event):
        await locked.wait()
        async with begin_other() as tx:
            await lock_a_row(tx)
            locked_at.append(now())

    async def main():
        locked = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(lock_after(locked))
            async with begin() as tx:
                await lock_a_row(tx)
                locked.set()

    if seconds > IDLE_TIMEOUT_S:
        with pytest.raises(ExceptionGroup) as failed:
            virtual_time.run(main())
        assert isinstance(failed.value.exceptions[0], StoreUnavailable)
    else:
        virtual_time.run(main())
    assert [pytest.approx(released_after, abs=0.1)] == locked_at


def test_a_transaction_without_a_statement_goes_on_after_any_time():
    async def main():
        database = MemoryDatabase()
        process = frozen_at(0, LONG)
        async with MemoryDatabaseClient(database, process, MemoryTransaction).transaction() as tx:
            await lock_a_row(tx)
        return now()

    assert virtual_time.run(main()) >= LONG
