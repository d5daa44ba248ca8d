"""A batch whose answer was lost is recognised by its rows, and only by its own."""

from saga_engine.store.batch_append import BatchAppend
from tests.kit.stored_runs import (
    add_commands,
    append_run,
    insert_run,
    reply_append,
    start_append,
)
from tests.kit.stores import RequesterStore


async def test_a_committed_batch_is_found_with_the_commands_that_wait(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        run = (await insert_run(tx, definition_id)).run_id
        [older] = await add_commands(tx, definition_id, 1)
        batch = BatchAppend(
            runs=[await reply_append(tx, run), await start_append(tx, definition_id, "order-1")]
        )
    async with store.batch() as tx:
        result = await tx.append_runs(batch)
    async with store.batch() as tx:
        found = await tx.read_outcome(batch, outbox_after=older.id)
        after_last = await tx.read_outcome(batch, outbox_after=result.outbox[-1].id)
        without_row = await tx.read_outcome(batch, outbox_after=None)
    assert found is not None
    assert found.lost == frozenset()
    assert [(each.id, each.command) for each in found.outbox] == [
        (each.id, each.command) for each in result.outbox
    ]
    assert len(found.outbox) == 2
    for each in (after_last, without_row):
        assert each is not None
        assert not each.outbox, "other workers may have published them"


async def test_what_a_batch_has_lost_or_not_appended_is_decided_again(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        lost, won, unchanged = [(await insert_run(tx, definition_id)).run_id for _ in range(3)]
        [older] = await add_commands(tx, definition_id, 1)
        other = await reply_append(tx, lost)
        runs = [await reply_append(tx, lost), await reply_append(tx, won)]
        batch = BatchAppend(runs=runs, unchanged={unchanged: 1})
        await append_run(tx, other)
    async with store.batch() as tx:
        await tx.append_runs(batch)
    async with store.batch() as tx:
        found = await tx.read_outcome(batch, outbox_after=older.id)
    assert found is not None
    assert found.lost == {lost, unchanged}
    assert [each.command.run_id for each in found.outbox] == [won]


async def test_a_batch_that_was_not_committed_is_not_found(
    store: RequesterStore, definition_id: int
):
    """Another worker has decided the same, at the same revision."""
    async with store.transaction() as tx:
        run = (await insert_run(tx, definition_id)).run_id
        append = await reply_append(tx, run)
    async with store.batch() as tx:
        await tx.append_runs(BatchAppend(runs=[append]))
    async with store.batch() as tx:
        assert await tx.read_outcome(BatchAppend(runs=[append]), outbox_after=0) is None
