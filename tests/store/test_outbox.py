from dataclasses import replace
from datetime import timedelta

from saga_engine.store.outbox import OutboxRow, StaleCommands
from tests.kit.stored_runs import decide_start, insert_run, sends
from tests.kit.stores import RequesterStore

NOW = timedelta(0)
NOTHING = StaleCommands([], 0)


async def sample(store: RequesterStore, number: int) -> list:
    async with store.transaction() as tx:
        send = sends(decide_start(await tx.database_now()))[0]
    return [replace(send, attempt=attempt) for attempt in range(1, number + 1)]


async def test_commands_are_claimed_unchanged_and_oldest_first(store: RequesterStore):
    wanted = await sample(store, 30)
    async with store.transaction() as tx:
        ids = await tx.add_commands(wanted)
    assert ids == sorted(ids)
    async with store.transaction() as tx:
        claimed = (await tx.claim_stale_commands(NOW, 100)).claimed
    assert [(each.id, each.command) for each in claimed] == list(zip(ids, wanted, strict=True))


async def test_only_commands_of_the_given_age_are_claimed(store: RequesterStore):
    async with store.transaction() as tx:
        await tx.add_commands(await sample(store, 1))
    async with store.transaction() as tx:
        assert await tx.claim_stale_commands(timedelta(minutes=1), 100) == NOTHING


async def test_a_claimed_command_is_not_claimed_again_for_that_age(store: RequesterStore):
    async with store.transaction() as tx:
        await tx.add_commands(await sample(store, 1))
    async with store.transaction() as tx:
        assert (await tx.claim_stale_commands(NOW, 100)).rows_found == 1
    async with store.transaction() as tx:
        assert await tx.claim_stale_commands(timedelta(minutes=1), 100) == NOTHING
        assert (await tx.claim_stale_commands(NOW, 100)).rows_found == 1


async def test_two_workers_that_resend_claim_different_commands(store: RequesterStore):
    async with store.transaction() as tx:
        await tx.add_commands(await sample(store, 6))
    async with store.transaction() as one, store.transaction() as other:
        first = (await one.claim_stale_commands(NOW, 4)).claimed
        second = (await other.claim_stale_commands(NOW, 4)).claimed
    assert (len(first), len(second)) == (4, 2)
    assert not ids(first) & ids(second)


async def test_deleting_a_command_twice_is_normal(store: RequesterStore):
    async with store.transaction() as tx:
        added = await tx.add_commands(await sample(store, 3))
        await tx.delete_commands(added[:2])
        await tx.delete_commands(added[:2])
        await tx.delete_commands([])
        backlog = await tx.count_backlog(10_000)
        assert ids((await tx.claim_stale_commands(NOW, 100)).claimed) == {added[2]}
        await tx.delete_commands(added)
        assert backlog.outbox_pending == 1
        assert backlog.outbox_oldest_age > 0
        backlog = await tx.count_backlog(10_000)
        assert (backlog.outbox_pending, backlog.outbox_oldest_age) == (0, 0.0)
        assert await tx.add_commands([]) == []


async def test_deleting_skips_locked_commands(store: RequesterStore):
    async with store.transaction() as tx:
        added = await tx.add_commands(await sample(store, 3))
    async with store.transaction() as resend, store.transaction() as tx:
        [held] = (await resend.claim_stale_commands(NOW, 1)).claimed
        await tx.delete_commands(added)
        assert (await tx.count_backlog(10_000)).outbox_pending == 1
    async with store.transaction() as tx:
        assert ids((await tx.claim_stale_commands(NOW, 100)).claimed) == {held.id}


def ids(rows: list[OutboxRow]) -> set[int]:
    return {row.id for row in rows}


async def test_a_command_that_its_run_no_longer_awaits_is_deleted(
    store: RequesterStore, definition_id: int
):
    [ordered] = await sample(store, 1)
    async with store.transaction() as tx:
        run = await insert_run(tx, definition_id)
        awaited = replace(ordered, run_id=run.run_id)
        others = [replace(awaited, attempt=2), replace(awaited, step="charge")]
        await tx.add_commands([*others, awaited])
    async with store.transaction() as tx:
        left = await tx.claim_stale_commands(NOW, 100)
    assert ([each.command for each in left.claimed], left.rows_found) == ([awaited], 3)
    async with store.transaction() as tx:
        assert (await tx.count_backlog(10_000)).outbox_pending == 1
