"""Runs whose code ended a worker: counted by call, released by a retry, deleted when expired."""

from dataclasses import replace
from uuid import uuid4

from saga_engine.postgres.statement import text
from saga_engine.store.audit import ActionKind, OperatorAction
from saga_engine.store.crash_suspects import CrashSuspect
from saga_engine.store.pending_requests import DEFAULT_READ_LIMITS, NewRequest, RequestKind
from tests.kit.stored_runs import ORDERS, insert_run, run_id, take_run_ids
from tests.kit.stores import RequesterStore, RequesterTransaction, SqlRequesterStore


def suspect(of: str) -> CrashSuspect:
    return CrashSuspect(run_id=of, step="charge", direction="action", function="shop.charge")


async def request_retry(tx: RequesterTransaction, of: str) -> None:
    action = OperatorAction(
        id=str(uuid4()), operator="ada", action=ActionKind.RETRY, reason="deployed", run_id=of
    )
    body = {"operator": "ada", "reason": "deployed", "resolution": "retry"}
    await tx.record_actions([action])
    await tx.record_operator_requests(
        [NewRequest(kind=RequestKind.RESOLVE, run_id=of, body=body, audit_id=action.id)]
    )


async def test_crashes_of_the_same_call_are_counted(store: RequesterStore):
    mine = suspect(run_id())
    async with store.transaction() as tx:
        assert [await tx.record_crash(mine) for _ in range(3)] == [1, 2, 3]
        assert await tx.record_crash(replace(mine, step="reserve")) == 1
        expected = replace(mine, step="reserve", crash_count=1)
        assert await tx.read_suspects() == {mine.run_id: expected}
        assert await tx.read_suspects_among([mine.run_id, run_id()]) == {mine.run_id: expected}
        assert await tx.read_suspects_among([]) == {}
        await tx.clear_suspects([mine.run_id])
        assert await tx.read_suspects() == {}


async def test_each_requested_retry_allows_the_call_once_more(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        mine = suspect((await insert_run(tx, definition_id)).run_id)
        await tx.record_crash(mine)
        assert await tx.read_suspects_with_work() == {}
        await request_retry(tx, mine.run_id)
        assert set(await tx.read_suspects_with_work()) == {mine.run_id}
        await tx.allow_retry(mine.run_id)
        assert (await tx.read_suspects())[mine.run_id].crash_count == 0
        assert await tx.record_crash(mine) == 1
        await tx.allow_retry(mine.run_id)  # the same request allows no second one
        assert (await tx.read_suspects())[mine.run_id].crash_count == 1


async def test_a_suspect_does_not_expire_within_a_day(store: RequesterStore, definition_id: int):
    async with store.transaction() as tx:
        unfinished = suspect((await insert_run(tx, definition_id)).run_id)
        for each in (unfinished, suspect(run_id())):
            await tx.record_crash(each)
        await tx.delete_expired_suspects()
        assert len(await tx.read_suspects()) == 2


async def test_a_suspect_expires_a_day_after_its_run_finished_or_never_started(
    sql_store: SqlRequesterStore, definition_id: int
):
    async with sql_store.transaction() as tx:
        unfinished = suspect((await insert_run(tx, definition_id)).run_id)
        for each in (unfinished, suspect(run_id())):
            await tx.record_crash(each)
        await tx.sql.execute(
            text("UPDATE saga_engine.crash_suspect SET last_crash_at = now() - interval '2 days'")
        )
        await tx.delete_expired_suspects()
        assert set(await tx.read_suspects()) == {unfinished.run_id}


async def test_the_oldest_request_of_a_suspect_is_taken_its_start_first(
    store: RequesterStore, definition_id: int
):
    cancel = NewRequest(kind=RequestKind.CANCEL, run_id=run_id(), body={}, awaits_start=True)
    start = NewRequest(kind=RequestKind.START, run_id=cancel.run_id, body={}, saga=ORDERS.name)
    async with store.transaction() as tx:
        await tx.record_requests([cancel, start])
        await insert_run(tx, definition_id)

        async def take(*ids: int) -> list[str]:
            taken = await tx.take_oldest_request(start.run_id, ids, DEFAULT_READ_LIMITS)
            return [request.kind for request in taken]

        assert await take(definition_id + 1) == [], (
            "the start is for a definition of another worker"
        )
        assert await take(definition_id) == ["start"]
        assert await take(definition_id) == [], "there is no run, so no worker has its definition"
        assert await take_run_ids(tx, definition_ids=[definition_id]) == [cancel.run_id]


async def test_one_transaction_at_a_time_has_a_suspect(store: RequesterStore):
    mine, other = run_id(), run_id()
    async with store.transaction() as first, store.transaction() as second:
        assert await first.lock_suspect(mine)
        assert not await second.lock_suspect(mine)
        assert await second.lock_suspect(other)
        assert await second.record_crash(suspect(mine)) == 1, "the watchdog does not wait"
    async with store.transaction() as tx:
        assert await tx.lock_suspect(mine)
