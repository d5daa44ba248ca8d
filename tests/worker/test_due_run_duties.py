"""Due runs: timers fire although requests, runs or the broker are in trouble."""

from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import text

from saga_engine.decider.triggers import Cancel
from saga_engine.identifiers import uuid7
from saga_engine.store import pending_requests
from saga_engine.store.pending_requests import NewRequest
from saga_engine.store.trigger_data import serialize_trigger
from saga_engine.telemetry.events import (
    AttemptFinished,
    BrokerConnectionChanged,
    EventLoopLagMeasured,
    InternalErrorCaught,
)
from saga_engine.vocabulary import Outcome, Status
from tests.kit.connections import wait_until
from tests.kit.engine import no_reply, succeed
from tests.kit.parcels import parcels
from tests.kit.promises import check_promises
from tests.worker.steps import SHORT_TIMEOUT, damage_run, delete_run, lose_last_row


async def overdue_run(engine):
    """Start a run whose command is not answered, stop the worker, and make it overdue."""
    worker, participant, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    participant.reply_makers["parcel.pack"] = no_reply
    run_id = await client.start()
    await participant.wait_for_commands("parcel.pack")
    await worker.stop()
    await make_overdue(engine, run_id)
    return participant


async def make_overdue(engine, *run_ids):
    """Change the journals of runs; the workers that held them have stopped."""
    await check_promises(engine.database, settled=False, held=engine.held_runs())
    engine.forget_held_runs()
    async with engine.database.transaction() as tx:
        for run_id in run_ids:
            await tx.execute(OVERDUE, {"run_id": run_id})


async def test_timers_fire_while_the_table_of_requests_is_locked(engine):
    """They are processed first, in a transaction that ends before that of the requests."""
    await overdue_run(engine)
    async with engine.database.transaction() as other:
        await other.execute(text("LOCK TABLE saga_engine.pending_request IN ACCESS EXCLUSIVE MODE"))
        worker = await engine.start_worker(
            database_lock_timeout=600.0, database_transaction_timeout=600.0
        )
        await worker.events.wait_for(AttemptFinished, step="pack", outcome=Outcome.UNKNOWN)
    await worker.stop()


async def test_timers_fire_while_every_batch_of_requests_fails(engine):
    participant = await overdue_run(engine)
    async with engine.database.transaction() as tx:
        for statement in REFUSE_DELETES:
            await tx.execute(text(statement))
        kind, body = serialize_trigger(Cancel("ada", "because"))
        await pending_requests.record(
            tx, [NewRequest(kind=kind, run_id=str(uuid7()), body=body) for _ in range(500)]
        )
    worker = await engine.start_worker()
    await worker.events.wait_for(InternalErrorCaught)
    assert len(await participant.wait_for_commands("parcel.pack", 2)) == 2
    await worker.stop()


OVERDUE = text(
    """
    WITH waiting AS (
        UPDATE saga_engine.run SET wake_at = clock_timestamp() - interval '1 hour'
        WHERE run_id = CAST(:run_id AS uuid))
    UPDATE saga_engine.journal
    SET events = jsonb_set(events, '{1,data,due_at}', '"2020-01-01T00:00:00+00:00"')
    WHERE run_id = CAST(:run_id AS uuid)"""
)


REFUSE_DELETES = (
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''No.''; END'",
    "CREATE TRIGGER stays BEFORE DELETE ON saga_engine.pending_request EXECUTE FUNCTION refuse()",
)


async def test_due_runs_beyond_the_byte_limit_are_all_processed(engine):
    """They are claimed at once; their transactions are smaller."""
    worker, participant, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    participant.reply_makers["parcel.pack"] = no_reply
    run_ids = [await client.start(input={"text": "x" * 30_000}) for _ in range(5)]
    await participant.wait_for_commands("parcel.pack", 5)
    await worker.stop()
    await make_overdue(engine, *run_ids)
    worker = await engine.start_worker(max_batch_bytes=65_536, run_cache_bytes=0)
    participant.reply_makers["parcel.pack"] = succeed
    for run_id in run_ids:
        assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    assert not worker.events.matching(InternalErrorCaught)


LOCK_RUN = text("SELECT FROM saga_engine.run WHERE run_id = CAST(:run_id AS uuid) FOR UPDATE")


@pytest.mark.parametrize(("damage", "snapshot_interval"), [(damage_run, 100), (lose_last_row, 1)])
async def test_a_damaged_due_run_does_not_block_the_timers_of_others(
    engine, damage, snapshot_interval
):
    worker = await engine.start_worker(
        parcels(timeout=SHORT_TIMEOUT), run_cache_bytes=0, run_snapshot_interval=snapshot_interval
    )
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.send"] = no_reply
    damaged = await client.start()
    await participant.wait_for_commands("parcel.send")
    await damage(engine, damaged)
    other = await client.start()
    assert await worker.events.wait_for_end(other) == Status.COMPENSATED
    await worker.events.wait_for(InternalErrorCaught, operation="due_runs", run_id=damaged)
    await delete_run(engine, damaged)


async def test_a_locked_due_run_and_a_damaged_one_block_no_other(engine):
    worker = await engine.start_worker(
        parcels(timeout=SHORT_TIMEOUT), database_lock_timeout=0.1, run_cache_bytes=0
    )
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.send"] = no_reply
    held, damaged = await client.start(), await client.start()
    await participant.wait_for_commands("parcel.send", 2)
    await damage_run(engine, damaged)
    async with engine.database.transaction() as tx:
        await tx.execute(LOCK_RUN, {"run_id": held})
        await worker.events.wait_for(InternalErrorCaught, operation="due_runs", run_id=damaged)
        assert await worker.events.wait_for_end(await client.start()) == Status.COMPENSATED
    assert await worker.events.wait_for_end(held) == Status.COMPENSATED
    await delete_run(engine, damaged)


def measured_more_than(worker, before):
    return len(worker.events.matching(EventLoopLagMeasured)) > before


async def test_no_attempt_times_out_while_the_broker_is_blocked(engine, development_broker):
    short = parcels(timeout=timedelta(milliseconds=200))
    worker, participant = await engine.start_worker(short), await engine.start_participant()
    client = await engine.connect_client()
    participant.reply_makers["parcel.pack"] = no_reply
    run_id = await client.start()
    await participant.wait_for_commands("parcel.pack")
    development_broker.faults.block_publishers("low on memory")
    await worker.events.wait_for(BrokerConnectionChanged, connection="publish", state="blocked")
    settled = len(worker.events.matching(AttemptFinished))
    for _ in range(2):  # each takes half a second: more than the timeout, and many polls
        before = len(worker.events.matching(EventLoopLagMeasured))
        await wait_until(partial(measured_more_than, worker, before))
    assert len(worker.events.matching(AttemptFinished)) == settled
    development_broker.faults.unblock_publishers()
    assert await worker.events.wait_for(
        AttemptFinished, run_id=str(run_id), outcome=Outcome.UNKNOWN
    )
