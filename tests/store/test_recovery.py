"""Commands in flight are added to the outbox again, page by page."""

from datetime import timedelta

from sqlalchemy import text

from saga_engine.decider.triggers import ReplyReceived
from saga_engine.store import outbox, recovery, runs
from saga_engine.store.database import Database
from saga_engine.store.sql_store import SqlStoreTransaction
from saga_engine.vocabulary import Direction, Outcome
from tests.kit.stored_runs import apply_trigger, insert_run

DECLINED = ReplyReceived(
    step="reserve", direction=Direction.ACTION, attempt=1, outcome=Outcome.REJECTED
)


async def test_each_command_in_flight_is_sent_again_with_its_idempotency_key(
    database: Database, definition_id: int, monkeypatch
):
    monkeypatch.setattr(recovery, "_PAGE_SIZE", 2)
    async with database.transaction() as tx:
        in_flight = [
            (await insert_run(SqlStoreTransaction(tx), definition_id)).run_id for _ in range(3)
        ]
        finished = (await insert_run(SqlStoreTransaction(tx), definition_id)).run_id
        await apply_trigger(SqlStoreTransaction(tx), finished, DECLINED)
        before = await runs.read(tx, in_flight)
    for _ in range(2):
        assert await recovery.resend_in_flight(database) == recovery.ResendResult(3, 3)
    async with database.transaction() as tx:
        claimed = (await outbox.claim_stale(tx, timedelta(days=1), 10)).claimed
        after = await runs.read(tx, in_flight)
    assert {row.command.idempotency_key for row in claimed} == {
        f"{run_id}/reserve/action/1" for run_id in in_flight
    }
    for each in in_flight:
        earlier, later = before[each].wake_at, after[each].wake_at
        assert earlier is not None
        assert later is not None
        assert later > earlier


async def test_a_damaged_run_does_not_keep_the_commands_of_others_from_being_sent_again(
    database: Database, definition_id: int
):
    async with database.transaction() as tx:
        run_ids = [
            (await insert_run(SqlStoreTransaction(tx), definition_id)).run_id for _ in range(3)
        ]
        damage = "UPDATE saga_engine.journal SET events = '[7]' WHERE run_id = CAST(:id AS uuid)"
        await tx.execute(text(damage), {"id": run_ids[1]})
    assert await recovery.resend_in_flight(database) == recovery.ResendResult(2, 2)
    async with database.transaction() as tx:
        claimed = (await outbox.claim_stale(tx, timedelta(days=1), 10)).claimed
    assert {each.command.run_id for each in claimed} == {run_ids[0], run_ids[2]}


async def test_runs_are_read_in_parts_and_their_commands_are_sent_again_once(
    database: Database, definition_id: int, monkeypatch
):
    monkeypatch.setattr(recovery, "_PAGE_BYTES", 1)
    async with database.transaction() as tx:
        for _ in range(5):
            await insert_run(SqlStoreTransaction(tx), definition_id)
    assert await recovery.resend_in_flight(database) == recovery.ResendResult(5, 5)
    async with database.transaction() as tx:
        assert (await outbox.backlog(tx)).pending == 5


async def test_a_database_without_unfinished_runs_has_nothing_to_send(database: Database):
    assert await recovery.resend_in_flight(database) == recovery.ResendResult(0, 0)
