"""Runs with a due timer: found, claimed and counted."""

from datetime import timedelta

from tests.kit.stored_runs import (
    insert_run,
    make_due,
)
from tests.kit.stores import RequesterStore

LEASE = timedelta(minutes=1)


async def test_each_due_run_is_claimed_by_one_worker(store: RequesterStore, definition_id: int):
    async with store.transaction() as tx:
        for _ in range(6):
            await make_due(tx, (await insert_run(tx, definition_id)).run_id)
        await insert_run(tx, definition_id)  # not due
    async with store.transaction() as one, store.transaction() as other:
        first = await one.claim_due_runs([definition_id], 4, lease=LEASE)
        second = await other.claim_due_runs([definition_id], 4, lease=LEASE)
        others = await other.claim_due_runs([definition_id + 1], 4, lease=LEASE)
        assert others.run_ids == []
    assert len(first.run_ids) == 4
    assert len(second.run_ids) == 2
    assert not set(first.run_ids) & set(second.run_ids)


async def test_a_claimed_run_is_due_again_after_the_lease(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        run = await insert_run(tx, definition_id)
        await make_due(tx, run.run_id)
    async with store.transaction() as tx:
        claimed = await tx.claim_due_runs([definition_id], 9, lease=LEASE)
    async with store.transaction() as tx:
        assert claimed.run_ids == [run.run_id]
        assert claimed.now is not None
        assert claimed.now <= await tx.database_now()
        assert (await tx.claim_due_runs([definition_id], 9, lease=LEASE)).run_ids == []
        await make_due(tx, run.run_id)
        again = await tx.claim_due_runs([definition_id], 9, lease=-LEASE)
        assert again.run_ids == [run.run_id]
        assert (await tx.read_runs([run.run_id]))[run.run_id].revision == 1, "nothing is decided"
    async with store.transaction() as tx:
        excluding = {run.run_id}
        found = await tx.claim_due_runs([definition_id], 9, lease=LEASE, excluding=excluding)
        assert found.run_ids == []
        assert await tx.due_run_ids([definition_id], 9) == [run.run_id]


async def test_runs_due_within_a_horizon_are_counted_for_the_definitions_of_the_worker(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        await insert_run(tx, definition_id)
        soon, later = timedelta(hours=2), timedelta(milliseconds=1)
        assert await tx.due_within({definition_id: soon}, 9) == {"place-order": 1}
        assert not any((await tx.due_within({definition_id: later}, 9)).values())
        assert await tx.due_within({}, 9) == {}, "runs of other definitions need no slot"
