"""Runs whose code ended a worker: counted by call, released by a retry, deleted when expired."""

from dataclasses import replace
from uuid import uuid4

from saga_engine.postgres.statement import text
from saga_engine.store import audit, checked_requests, crash_suspects
from saga_engine.store.audit import ActionKind, OperatorAction
from saga_engine.store.crash_suspects import CrashSuspect
from saga_engine.store.database import Database, SqlAlchemyTransaction
from saga_engine.store.pending_requests import NewRequest
from tests.kit.stored_runs import insert_run, run_id


def suspect(of: str) -> CrashSuspect:
    return CrashSuspect(run_id=of, step="charge", direction="action", function="shop.charge")


async def request_retry(tx: SqlAlchemyTransaction, of: str) -> None:
    action = OperatorAction(
        id=str(uuid4()), operator="ada", action=ActionKind.RETRY, reason="deployed", run_id=of
    )
    body = {"operator": "ada", "reason": "deployed", "resolution": "retry"}
    await audit.record(tx, [action])
    await checked_requests.record_operator_requests(
        tx, [NewRequest(kind="resolve", run_id=of, body=body, audit_id=action.id)]
    )


async def test_crashes_of_the_same_call_are_counted(database: Database):
    mine = suspect(run_id())
    async with database.transaction() as tx:
        assert [await crash_suspects.record_crash(tx, mine) for _ in range(3)] == [1, 2, 3]
        assert await crash_suspects.record_crash(tx, replace(mine, step="reserve")) == 1
        expected = replace(mine, step="reserve", crash_count=1)
        assert await crash_suspects.read_all(tx) == {mine.run_id: expected}
        assert await crash_suspects.read_among(tx, [mine.run_id, run_id()]) == {
            mine.run_id: expected
        }
        assert await crash_suspects.read_among(tx, []) == {}
        await crash_suspects.clear(tx, [mine.run_id])
        assert await crash_suspects.read_all(tx) == {}


async def test_each_requested_retry_allows_the_call_once_more(
    database: Database, definition_id: int
):
    async with database.transaction() as tx:
        mine = suspect((await insert_run(tx, definition_id)).run_id)
        await crash_suspects.record_crash(tx, mine)
        assert await crash_suspects.read_with_work(tx) == {}
        await request_retry(tx, mine.run_id)
        assert set(await crash_suspects.read_with_work(tx)) == {mine.run_id}
        await crash_suspects.allow_retry(tx, mine.run_id)
        assert (await crash_suspects.read_all(tx))[mine.run_id].crash_count == 0
        assert await crash_suspects.record_crash(tx, mine) == 1
        await crash_suspects.allow_retry(tx, mine.run_id)  # the same request allows no second one
        assert (await crash_suspects.read_all(tx))[mine.run_id].crash_count == 1


async def test_a_suspect_expires_a_day_after_its_run_finished_or_never_started(
    database: Database, definition_id: int
):
    async with database.transaction() as tx:
        unfinished = suspect((await insert_run(tx, definition_id)).run_id)
        for each in (unfinished, suspect(run_id())):
            await crash_suspects.record_crash(tx, each)
        await crash_suspects.delete_expired(tx)
        assert len(await crash_suspects.read_all(tx)) == 2
        await tx.execute(
            text("UPDATE saga_engine.crash_suspect SET last_crash_at = now() - interval '2 days'")
        )
        await crash_suspects.delete_expired(tx)
        assert set(await crash_suspects.read_all(tx)) == {unfinished.run_id}
