"""The transactions of the model of PostgreSQL: commits, row locks, snapshots, statements."""

import asyncio
from contextlib import suppress

import pytest

from saga_engine.errors import SerializationFailure, StoreUnavailable
from simulation.faults import FaultInjector, seeded_random
from simulation.memory_client import MemoryDatabaseClient
from simulation.memory_database import (
    MemoryDatabase,
    MemoryTransaction,
    NoStatement,
)
from simulation.process import SimulatedProcess


@pytest.fixture
def process():
    return SimulatedProcess("test", FaultInjector(), seeded_random(0, "network"))


@pytest.fixture
def begin(process):
    return MemoryDatabaseClient(MemoryDatabase(), process, MemoryTransaction).transaction


async def write(tx, **values):
    async with tx.statement():
        for key, value in values.items():
            await tx.lock("run", key)
            tx.put("run", key, {"value": value})


async def read(tx, *keys):
    async with tx.statement():
        return [(tx.get("run", key) or {}).get("value") for key in keys]


async def test_writes_are_seen_by_others_when_they_are_committed(begin):
    async with begin() as other:
        async with begin() as tx:
            await write(tx, a=1)
            assert (await read(tx, "a"), await read(other, "a")) == ([1], [None])
        assert await read(other, "a") == [1]


async def test_a_statement_that_waited_sees_the_newest_version_only_of_the_row_it_locked(begin):
    async with begin() as tx:
        await write(tx, a=1, b=1)
    found, started = [], asyncio.Event()

    async def lock_and_read():
        async with begin() as tx, tx.statement():
            started.set()
            row = await tx.lock("run", "a")
            found.extend([row, tx.get("run", "b"), [key for key, _ in tx.scan("run")]])

    async with asyncio.TaskGroup() as group, begin() as tx:
        await write(tx, a=2, b=2, c=2)
        group.create_task(lock_and_read())
        await started.wait()
    assert found == [{"value": 2}, {"value": 1}, ["a", "b"]]


async def test_an_operation_outside_a_statement_fails(begin):
    async with begin() as tx:
        for operation in (
            lambda: tx.get("run", "a"),
            lambda: list(tx.scan("run")),
            lambda: tx.is_lockable("run", "a"),
            lambda: tx.lock_unlocked("run", "a"),
            lambda: tx.put("run", "a", {}),
            lambda: tx.delete("run", "a"),
        ):
            with pytest.raises(NoStatement, match="outside"):
                operation()
        with pytest.raises(NoStatement, match="outside"):
            await tx.lock("run", "a")
        with pytest.raises(NoStatement, match="outside"):
            await tx.lock_table("run")
        with pytest.raises(NoStatement, match="outside"):
            await tx.insert("run", "a", {})
        async with tx.statement():
            with pytest.raises(NoStatement, match="one after another"):
                await read(tx, "a")


async def test_a_transaction_that_was_disconnected_while_it_waited_locks_nothing(process):
    tables = MemoryDatabase()
    holder, waiting, other = (MemoryTransaction(tables, process, None) for _ in range(3))
    async with holder.statement():
        holder.lock_unlocked("run", 1)
    for each in (holder, waiting):
        asyncio.get_running_loop().call_soon(each.release)
    with pytest.raises(StoreUnavailable, match="was lost while it waited"):
        async with waiting.statement():
            await waiting.lock("run", 1)
    async with other.statement():
        assert other.is_lockable("run", 1)


async def test_a_deadlock_ends_the_transaction_that_completes_it(process):
    tables = MemoryDatabase()
    ended: list[MemoryTransaction] = []
    tables.on_deadlock.append(ended.append)
    one, other = (MemoryTransaction(tables, process, None) for _ in range(2))
    await write(one, a=1)
    await write(other, b=1)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(write(one, b=2))
        while one._waits_for is not other:
            await asyncio.wait([waiting], timeout=0.001)
        with pytest.raises(SerializationFailure):
            await write(other, a=2)
    assert ended == [other]
    await one.commit()
    assert tables.rows["run"]["b"] == {"value": 2}


async def test_what_fails_under_a_savepoint_is_undone_alone(begin):
    async with begin() as tx:
        await write(tx, a=1)
        with suppress(ZeroDivisionError):
            async with tx.savepoint():
                await write(tx, a=2, b=2)
                raise ZeroDivisionError
        async with tx.savepoint():
            await write(tx, c=3)
        assert await read(tx, "a", "b", "c") == [1, None, 3]
