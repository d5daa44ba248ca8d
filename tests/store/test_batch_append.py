"""The one statement of a batch: which runs it wins, and that a run that is lost gets nothing."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from sqlalchemy import text

from saga_engine.decider.decide import decide
from saga_engine.decider.triggers import ReplyReceived, WakeUp
from saga_engine.protocol.run_result import result_of_run
from saga_engine.store.batch_append import BatchAppend
from saga_engine.store.business_keys import KeyRequest
from saga_engine.store.database import Database
from saga_engine.store.journal import NewDecision
from saga_engine.store.pending_requests import NewRequest, RequestKind
from saga_engine.store.sql_store import SqlStoreTransaction
from saga_engine.vocabulary import Direction, Outcome, Status
from tests.kit.stored_runs import (
    CHARGED,
    DECLINED,
    INPUT,
    ORDERS,
    RESERVED,
    append_run,
    apply_trigger,
    insert_run,
    reply_append,
    run_append,
    run_id,
    run_of,
    start_append,
)
from tests.kit.stores import RequesterStore, read_events

NOW = timedelta(0)

RELEASED = ReplyReceived(
    step="reserve", direction=Direction.COMPENSATION, attempt=1, outcome=Outcome.SUCCEEDED, body={}
)


async def test_of_two_batches_that_decided_on_the_same_revision_one_loses_the_run(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        run = (await insert_run(tx, definition_id)).run_id
        other = (await insert_run(tx, definition_id)).run_id
        first, second = await reply_append(tx, run), await reply_append(tx, run)
        beside = await reply_append(tx, other)
    async with store.batch() as tx:
        won = await tx.append_runs(BatchAppend(runs=[first]))
    async with store.batch() as tx:
        lost = await tx.append_runs(BatchAppend(runs=[second, beside]))
    assert not won.lost
    assert lost.lost == {run}
    assert [each.command for each in lost.outbox] == list(beside.commands)
    async with store.transaction() as tx:
        stored = await tx.read_runs([run, other])
        assert [stored[each].revision for each in (run, other)] == [2, 2]
        claimed = (await tx.claim_stale_commands(NOW, 9)).claimed
        assert [each.command.run_id for each in claimed] == [run, other], "no command is left"
        events = [event.type for event in await read_events(tx, run)]
    assert events.count("step_succeeded") == 1


async def test_a_loser_waits_for_the_winner_and_leaves_nothing(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        run = (await insert_run(tx, definition_id)).run_id
        first, second = await reply_append(tx, run), await reply_append(tx, run)

    loses = asyncio.Event()

    async def lose() -> frozenset[str]:
        async with store.batch() as tx:
            loses.set()
            return (await tx.append_runs(BatchAppend(runs=[second]))).lost

    async with asyncio.TaskGroup() as group, store.transaction() as tx:
        await append_run(tx, first)
        loser = group.create_task(lose())
        await loses.wait()
    assert loser.result() == {run}
    async with store.transaction() as tx:
        assert (await tx.read_runs([run]))[run].revision == 2


async def test_a_rolled_back_winner_makes_the_other_batch_win(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        run = (await insert_run(tx, definition_id)).run_id
        append = await reply_append(tx, run)
    with suppress(ZeroDivisionError):
        async with store.transaction() as tx:
            await append_run(tx, append)
            raise ZeroDivisionError
    async with store.batch() as tx:
        assert not (await tx.append_runs(BatchAppend(runs=[append]))).lost


async def test_a_row_needs_the_row_before_it(store: RequesterStore, definition_id: int):
    """A failover may have lost rows that a worker remembers."""
    async with store.transaction() as tx:
        run = (await insert_run(tx, definition_id)).run_id
        append = await reply_append(tx, run)
        row = replace(append.journal_row, revision=3)
        stored = replace(append.stored_run, revision=3)
        ahead = replace(append, journal_row=row, stored_run=stored)
        unknown = replace(append, journal_row=replace(append.journal_row, run_id=run_id()))
    async with store.batch() as tx:
        assert (await tx.append_runs(BatchAppend(runs=[ahead]))).lost == {run}
    async with store.batch() as tx:
        result = await tx.append_runs(BatchAppend(unchanged={run_of(unknown): 1, run: 1}))
        assert result.lost == {run_of(unknown)}


async def test_a_decision_without_events_counts_only_at_the_revision_it_was_decided_on(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        old, current = [(await insert_run(tx, definition_id)).run_id for _ in range(2)]
        await apply_trigger(tx, old, RESERVED)
    async with store.batch() as tx:
        stale = await tx.append_runs(BatchAppend(unchanged={old: 1, current: 1}))
        assert stale.lost == {old}
    async with store.batch() as tx:
        fresh = await tx.append_runs(BatchAppend(unchanged={old: 2, current: 1}))
        assert not fresh.lost
        assert await tx.read_runs([]) == {}


async def test_a_new_run_starts_once(store: RequesterStore, definition_id: int):
    async with store.transaction() as tx:
        start = await start_append(tx, definition_id)
        pending = await start_append(tx, definition_id)
        request = NewRequest(
            kind=RequestKind.START, run_id=run_of(pending), body={}, saga=ORDERS.name
        )
        await tx.record_requests([request])
    async with store.batch() as tx:
        first = await tx.append_runs(BatchAppend(runs=[start, pending]))
    async with store.batch() as tx:
        again = await tx.append_runs(BatchAppend(runs=[start]))
    assert first.lost == {run_of(pending)}
    assert again.lost == {run_of(start)}
    assert [each.command for each in first.outbox] == list(start.commands)


async def test_a_key_is_reserved_with_the_start_of_its_run(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        first, second = [await start_append(tx, definition_id, "k") for _ in range(2)]
        other = await start_append(tx, definition_id, "another")
    async with store.batch() as tx:
        assert not (await tx.append_runs(BatchAppend(runs=[first]))).lost
    async with store.batch() as tx:
        result = await tx.append_runs(BatchAppend(runs=[second, other]))
    assert result.lost == {run_of(second)}
    async with store.transaction() as tx:
        assert set(await tx.read_runs(list(map(run_of, (first, second, other))))) == {
            run_of(first),
            run_of(other),
        }


async def test_a_key_is_not_reserved_for_a_run_that_exists(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        run = await insert_run(tx, definition_id)
        start = await start_append(tx, definition_id, "k")
        row = replace(start.journal_row, run_id=run.run_id)
        stored = replace(start.stored_run, run=replace(start.stored_run.run, run_id=run.run_id))
        repeated = replace(start, journal_row=row, stored_run=stored, commands=())
    async with store.batch() as tx:
        assert (await tx.append_runs(BatchAppend(runs=[repeated]))).lost == {run.run_id}
    async with store.transaction() as tx:
        request = KeyRequest(ORDERS.name, "k", run_id(), INPUT)
        [owner] = await tx.reserve_keys([request])
        assert owner is not None
        assert owner.run_id == request.run_id, "it is free"


async def test_a_key_that_another_transaction_is_about_to_reserve_is_not_waited_for(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        start = await start_append(tx, definition_id, "k")
    async with store.transaction() as holder:
        await holder.reserve_keys([KeyRequest(ORDERS.name, "k", run_id(), INPUT)])
        async with store.batch() as tx:
            assert (await tx.append_runs(BatchAppend(runs=[start]))).lost == {run_of(start)}


async def test_a_batch_that_only_appends_holds_no_lock_until_its_end(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        run = (await insert_run(tx, definition_id)).run_id
        append = await reply_append(tx, run)
    async with store.batch() as one:
        await one.append_runs(BatchAppend(runs=[append]))
        async with store.batch() as other:
            next_append = await reply_append(other, run, CHARGED)
            assert not other.has_started
            assert not (await other.append_runs(BatchAppend(runs=[next_append]))).lost


async def test_a_batch_that_has_started_is_undone_as_a_whole(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        run = (await insert_run(tx, definition_id)).run_id
        append = await reply_append(tx, run, DECLINED)
    with suppress(ZeroDivisionError):
        async with store.batch() as tx:
            await tx.begin()
            await append_run(tx, append)
            raise ZeroDivisionError
    async with store.transaction() as tx:
        assert (await tx.read_runs([run]))[run].revision == 1


async def test_a_wake_up_at_which_nothing_was_due_appends_a_row_without_events(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        run = (await insert_run(tx, definition_id)).run_id
        append = await reply_append(tx, run, WakeUp())
        assert append.journal_row.decisions == [NewDecision((), {"causation_id": "m-1"})]
        await append_run(tx, append)
        assert (await tx.read_runs([run]))[run].revision == 2
        assert {event.revision for event in await read_events(tx, run)} == {1}
        await apply_trigger(tx, run, RESERVED)
        positions = [event.position for event in await read_events(tx, run)]
    assert positions == sorted(set(positions))


async def test_the_position_and_the_time_follow_from_the_database(
    store: RequesterStore, definition_id: int
):
    async with store.transaction() as tx:
        appends = [await start_append(tx, definition_id) for _ in range(3)]
        result = await tx.append_runs(BatchAppend(runs=appends))
        assert result.now <= await tx.database_now()
        assert {each.command.run_id for each in result.outbox} == set(map(run_of, appends))
        assert [each.id for each in result.outbox] == sorted(each.id for each in result.outbox)
        assert all(result.written_bytes[run_of(each)] > 0 for each in appends)
        stored = await tx.read_runs(list(map(run_of, appends)))
    assert {each.run.status for each in stored.values()} == {Status.RUNNING}


async def test_an_ordinary_step_writes_no_row_of_a_run(database: Database, definition_id: int):
    async with database.transaction() as tx:
        run = await insert_run(SqlStoreTransaction(tx), definition_id)
    async with database.transaction() as tx:
        await apply_trigger(SqlStoreTransaction(tx), run.run_id, RESERVED)
        assert (await tx.execute(UPDATED_RUNS)).scalar_one() == 0
        await apply_trigger(SqlStoreTransaction(tx), run.run_id, CHARGED)
        assert (await tx.execute(UPDATED_RUNS)).scalar_one() == 1


UPDATED_RUNS = text(
    "SELECT sum(n_tup_upd)::int FROM pg_stat_xact_user_tables"
    " WHERE schemaname = 'saga_engine' AND relname LIKE 'run\\_%'"
)


async def test_a_run_that_ends_and_goes_on_in_one_batch_has_the_columns_of_its_journal(
    store: RequesterStore, definition_id: int
):
    """Its status is the same as before, and why it compensates is not."""
    async with store.transaction() as tx:
        run = (await insert_run(tx, definition_id)).run_id
        for trigger in (RESERVED, DECLINED):
            await apply_trigger(tx, run, trigger)
        before, now = (await tx.read_runs([run]))[run], await tx.database_now()
        compensated = decide(ORDERS, before.run, RELEASED, now)
        late = decide(ORDERS, compensated.run, CHARGED, now)
        assert late.run is not None
        assert [each and each.status for each in (before.run, compensated.run, late.run)] == [
            Status.COMPENSATING,
            Status.COMPENSATED,
            Status.COMPENSATING,
        ]
        await append_run(
            tx,
            run_append(
                compensated,
                late,
                definition_id=definition_id,
                recorded_at=now,
                revision=before.revision + 1,
            ),
        )
        status = (await tx.read_statuses([run]))[run]
    assert status == result_of_run(late.run)
    assert status.error != result_of_run(before.run).error
