"""Runs with a due timer: found, locked and counted."""

from datetime import timedelta

from tests.kit.stored_runs import (
    insert_run,
    make_due,
)
from tests.kit.stores import RequesterStore


async def test_each_due_run_is_locked_by_one_worker(store: RequesterStore, definition_id: int):
    async with store.transaction() as tx:
        for _ in range(6):
            await make_due(tx, (await insert_run(tx, definition_id)).run_id)
        await insert_run(tx, definition_id)  # not due
    async with store.transaction() as one, store.transaction() as other:
        first = await one.lock_due_runs([definition_id], 4)
        second = await other.lock_due_runs([definition_id], 4)
        assert await other.lock_due_runs([definition_id + 1], 4) == {}
    assert len(first) == 4
    assert len(second) == 2
    assert not first.keys() & second.keys()


async def test_runs_due_within_a_horizon_are_counted_for_the_definitions_of_the_worker(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        await insert_run(tx, definition_id)
        soon, later = timedelta(hours=2), timedelta(milliseconds=1)
        assert await tx.due_within({definition_id: soon}, 9) == {"place-order": 1}
        assert not any((await tx.due_within({definition_id: later}, 9)).values())
        assert await tx.due_within({}, 9) == {}, "runs of other definitions need no slot"
