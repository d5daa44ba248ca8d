"""Commands that were decided and may not be published yet."""

from dataclasses import replace
from datetime import timedelta

from saga_engine.store.outbox import OutboxRow, StaleCommands
from tests.kit.stored_runs import (
    add_commands,
    append_run,
    decide_start,
    delete_commands,
    run_append,
    sends,
)
from tests.kit.stores import RequesterStore

NOW = timedelta(0)
NOTHING = StaleCommands([], 0)


async def test_commands_are_claimed_unchanged_and_oldest_first(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        added = await add_commands(tx, definition_id, 30)
    assert [each.id for each in added] == sorted(ids(added))
    async with store.transaction() as tx:
        claimed = (await tx.claim_stale_commands(NOW, 100)).claimed
    assert [(each.id, each.command) for each in claimed] == [
        (each.id, each.command) for each in added
    ]


async def test_only_commands_of_the_given_age_are_claimed(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        await add_commands(tx, definition_id, 1)
    async with store.transaction() as tx:
        assert await tx.claim_stale_commands(timedelta(minutes=1), 100) == NOTHING


async def test_a_claimed_command_is_not_claimed_again_for_that_age(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        await add_commands(tx, definition_id, 1)
    async with store.transaction() as tx:
        assert (await tx.claim_stale_commands(NOW, 100)).rows_found == 1
    async with store.transaction() as tx:
        assert await tx.claim_stale_commands(timedelta(minutes=1), 100) == NOTHING
        assert (await tx.claim_stale_commands(NOW, 100)).rows_found == 1


async def test_two_workers_that_resend_claim_different_commands(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        await add_commands(tx, definition_id, 6)
    async with store.transaction() as one, store.transaction() as other:
        first = (await one.claim_stale_commands(NOW, 4)).claimed
        second = (await other.claim_stale_commands(NOW, 4)).claimed
    assert (len(first), len(second)) == (4, 2)
    assert not ids(first) & ids(second)


async def test_deleting_a_command_twice_is_normal(store: RequesterStore, definition_id: int):
    async with store.transaction() as tx:
        added = [each.id for each in await add_commands(tx, definition_id, 3)]
        await delete_commands(tx, added[:2])
        await delete_commands(tx, added[:2])
        await delete_commands(tx, [])
        backlog = await tx.count_backlog(10_000)
        assert ids((await tx.claim_stale_commands(NOW, 100)).claimed) == {added[2]}
        await delete_commands(tx, added)
        assert backlog.outbox_pending == 1
        assert backlog.outbox_oldest_age > 0
        backlog = await tx.count_backlog(10_000)
        assert (backlog.outbox_pending, backlog.outbox_oldest_age) == (0, 0.0)


async def test_deleting_skips_locked_commands(store: RequesterStore, definition_id: int):
    async with store.transaction() as tx:
        added = await add_commands(tx, definition_id, 3)
    async with store.transaction() as resend, store.transaction() as tx:
        [held] = (await resend.claim_stale_commands(NOW, 1)).claimed
        await delete_commands(tx, sorted(ids(added)))
        assert (await tx.count_backlog(10_000)).outbox_pending == 1
    async with store.transaction() as tx:
        assert ids((await tx.claim_stale_commands(NOW, 100)).claimed) == {held.id}


def ids(rows: list[OutboxRow]) -> set[int]:
    return {row.id for row in rows}


async def test_a_command_that_its_run_no_longer_awaits_is_deleted(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        now = await tx.database_now()
        decision = decide_start(now)
        [awaited] = sends(decision)
        others = [replace(awaited, attempt=2), replace(awaited, step="charge")]
        commands = [*others, awaited]
        run = run_append(decision, definition_id=definition_id, recorded_at=now, commands=commands)
        await append_run(tx, run)
    async with store.transaction() as tx:
        left = await tx.claim_stale_commands(NOW, 100)
    assert ([each.command for each in left.claimed], left.rows_found) == ([awaited], 3)
    async with store.transaction() as tx:
        assert (await tx.count_backlog(10_000)).outbox_pending == 1
