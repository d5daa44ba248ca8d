from dataclasses import replace
from datetime import timedelta

from saga_engine.store import outbox, runs
from saga_engine.store.database import Database
from saga_engine.store.outbox import OutboxRow, StaleCommands
from tests.kit.stored_runs import BOTH_DATABASES, decide_start, insert_run, sends

pytestmark = BOTH_DATABASES

NOW = timedelta(0)
NOTHING = StaleCommands([], 0)


async def sample(database: Database, number: int) -> list:
    async with database.transaction() as tx:
        send = sends(decide_start(await runs.database_now(tx)))[0]
    return [replace(send, attempt=attempt) for attempt in range(1, number + 1)]


async def test_commands_are_claimed_unchanged_and_oldest_first(database: Database):
    wanted = await sample(database, 30)
    async with database.transaction() as tx:
        ids = await outbox.add(tx, wanted)
    assert ids == sorted(ids)
    async with database.transaction() as tx:
        claimed = (await outbox.claim_stale(tx, NOW, 100)).claimed
    assert [(each.id, each.send) for each in claimed] == list(zip(ids, wanted, strict=True))


async def test_only_commands_of_the_given_age_are_claimed(database: Database):
    async with database.transaction() as tx:
        await outbox.add(tx, await sample(database, 1))
    async with database.transaction() as tx:
        assert await outbox.claim_stale(tx, timedelta(minutes=1), 100) == NOTHING


async def test_a_claimed_command_is_not_claimed_again_for_that_age(database: Database):
    async with database.transaction() as tx:
        await outbox.add(tx, await sample(database, 1))
    async with database.transaction() as tx:
        assert (await outbox.claim_stale(tx, NOW, 100)).rows_found == 1
    async with database.transaction() as tx:
        assert await outbox.claim_stale(tx, timedelta(minutes=1), 100) == NOTHING
        assert (await outbox.claim_stale(tx, NOW, 100)).rows_found == 1


async def test_two_workers_that_resend_claim_different_commands(database: Database):
    async with database.transaction() as tx:
        await outbox.add(tx, await sample(database, 6))
    async with database.transaction() as one, database.transaction() as other:
        first = (await outbox.claim_stale(one, NOW, 4)).claimed
        second = (await outbox.claim_stale(other, NOW, 4)).claimed
    assert (len(first), len(second)) == (4, 2)
    assert not ids(first) & ids(second)


async def test_deleting_a_command_twice_is_normal(database: Database):
    async with database.transaction() as tx:
        added = await outbox.add(tx, await sample(database, 3))
        await outbox.delete(tx, added[:2])
        await outbox.delete(tx, added[:2])
        await outbox.delete(tx, [])
        backlog = await outbox.backlog(tx)
        assert ids((await outbox.claim_stale(tx, NOW, 100)).claimed) == {added[2]}
        await outbox.delete(tx, added)
        assert backlog.pending == 1
        assert backlog.oldest_age > 0
        assert await outbox.backlog(tx) == outbox.OutboxBacklog(0, 0.0)
        assert await outbox.add(tx, []) == []


async def test_deleting_skips_locked_commands(database: Database):
    async with database.transaction() as tx:
        added = await outbox.add(tx, await sample(database, 3))
    async with database.transaction() as resend, database.transaction() as tx:
        [held] = (await outbox.claim_stale(resend, NOW, 1)).claimed
        await outbox.delete(tx, added)
        assert (await outbox.backlog(tx)).pending == 1
    async with database.transaction() as tx:
        assert ids((await outbox.claim_stale(tx, NOW, 100)).claimed) == {held.id}


def ids(rows: list[OutboxRow]) -> set[int]:
    return {row.id for row in rows}


async def test_a_command_that_its_run_no_longer_awaits_is_deleted(
    database: Database, definition_id: int
):
    [ordered] = await sample(database, 1)
    async with database.transaction() as tx:
        run = await insert_run(tx, definition_id)
        awaited = replace(ordered, run_id=run.run_id)
        others = [replace(awaited, attempt=2), replace(awaited, step="charge")]
        await outbox.add(tx, [*others, awaited])
    async with database.transaction() as tx:
        left = await outbox.claim_stale(tx, NOW, 100)
    assert ([each.send for each in left.claimed], left.rows_found) == ([awaited], 3)
    async with database.transaction() as tx:
        assert (await outbox.backlog(tx)).pending == 1
