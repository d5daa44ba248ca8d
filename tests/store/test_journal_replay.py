"""A run whose journal is damaged is read as far as it can be, and the damage is named."""

import pytest
from sqlalchemy import text

from saga_engine.decider.run import StepStatus
from saga_engine.store import run_queries
from saga_engine.store.database import Database
from saga_engine.store.sql_store import SqlStoreTransaction
from saga_engine.vocabulary import Status
from tests.kit.stored_runs import CHARGED, RESERVED, apply_trigger, insert_run

SET_EVENTS = "UPDATE saga_engine.journal SET events = '{}' WHERE revision = {}"
LOSE = "DELETE FROM saga_engine.journal WHERE revision = {}"
UNKNOWN = '[{"type": "of a newer version", "data": {}}]'
DAMAGES = {
    "no event": (SET_EVENTS.format("[7]", 2), [(2, "its events cannot be read")]),
    "no list": (SET_EVENTS.format("{}", 3), [(3, "its events cannot be read")]),
    "no object": (
        SET_EVENTS.format('[{"type": "step_succeeded", "data": 7}]', 2),
        [(2, "its events cannot be read")],
    ),
    "unknown event": (
        SET_EVENTS.format(UNKNOWN, 2),
        [(2, "its event 'of a newer version' cannot be read or applied (KeyError)")],
    ),
    "first row": (LOSE.format(1), [(1, "its row is missing")]),
    "middle row": (LOSE.format(2), [(2, "its row is missing")]),
    "all rows": ("DELETE FROM saga_engine.journal", [(1, "its row is missing")]),
}


async def insert_completed_run(tx, definition_id: int, *, with_snapshot: bool = False) -> str:
    """A run with a journal of three rows, and perhaps a snapshot of the second one."""
    run = await insert_run(tx, definition_id)
    await apply_trigger(tx, run.run_id, RESERVED, with_snapshot=with_snapshot)
    await apply_trigger(tx, run.run_id, CHARGED)
    return run.run_id


@pytest.mark.parametrize("name", DAMAGES)
async def test_a_damaged_journal_is_read_as_far_as_it_can_be(
    database: Database, definition_id: int, name: str
):
    statement, expected = DAMAGES[name]
    async with database.transaction() as tx:
        run_id = await insert_completed_run(SqlStoreTransaction(tx), definition_id)
        await tx.execute(text(statement))
        detail = await run_queries.read_detail(tx, run_id)
        [summary] = await run_queries.list_runs(tx, limit=9)
    assert detail is not None
    assert [(each.revision, each.problem) for each in detail.damage] == expected
    run = detail.stored_run.run
    assert (
        (run.run_id, run.status) == (summary.run_id, summary.status) == (run_id, Status.COMPLETED)
    )
    before = expected[0][0]
    reserved = run.steps["reserve"].action.status if run.steps else None
    assert reserved == {1: None, 2: StepStatus.IN_FLIGHT, 3: StepStatus.SUCCEEDED}[before]
    readable = {1, 2, 3} - {revision for revision, problem in expected if "missing" in problem}
    assert {each.revision for each in detail.journal} == (readable if name != "all rows" else set())


async def test_rows_before_a_snapshot_are_not_needed_for_the_run(
    database: Database, definition_id: int
):
    async with database.transaction() as tx:
        store_tx = SqlStoreTransaction(tx)
        run_id = await insert_completed_run(store_tx, definition_id, with_snapshot=True)
        whole = await run_queries.read_detail(tx, run_id)
        await tx.execute(text(LOSE.format(1)))
        without_row = await run_queries.read_detail(tx, run_id)
        assert whole is not None
        assert without_row is not None
        assert (
            whole.stored_run
            == without_row.stored_run
            == (await store_tx.read_runs([run_id]))[run_id]
        )
        assert not whole.damage
        assert [each.revision for each in without_row.damage] == [1]
        await tx.execute(text("UPDATE saga_engine.run SET snapshot = '7'"))
        without_snapshot = await run_queries.read_detail(tx, run_id)
        assert without_snapshot is not None
        assert [each.revision for each in without_snapshot.damage] == [2, 1]


async def test_a_damaged_cause_does_not_keep_other_runs_from_being_listed(
    database: Database, definition_id: int
):
    async with database.transaction() as tx:
        store_tx = SqlStoreTransaction(tx)
        first = await insert_completed_run(store_tx, definition_id)
        await tx.execute(text("UPDATE saga_engine.run SET cause = '7'"))
        second = await insert_completed_run(store_tx, definition_id)
        listed = {each.run_id: each.failure for each in await run_queries.list_runs(tx, limit=9)}
    assert listed[second] is None
    failure = listed[first]
    assert failure is not None
    assert failure.code == "unreadable"
