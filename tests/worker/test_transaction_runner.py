"""One transaction: an ordinary step is a single statement, and what is lost is decided again."""

from dataclasses import replace

import pytest
from sqlalchemy import text

from saga_engine.decider.triggers import Cancel, ReplyReceived, Start
from saga_engine.errors import SchemaMismatch
from saga_engine.identifiers import uuid7
from saga_engine.settings import Settings
from saga_engine.store import definitions, engine_identity, journal, outbox, runs
from saga_engine.store.sql_store import SqlStore, SqlStoreTransaction
from saga_engine.telemetry.events import (
    AttemptFinished,
    BatchProcessed,
    DatabaseUnavailable,
    Emitter,
    InternalErrorCaught,
    MessageDeadLettered,
    RunStarted,
)
from saga_engine.vocabulary import Direction, Outcome, Status
from saga_engine.worker.batch_runner import BatchRunner, LockStrategy
from saga_engine.worker.outbox_publisher import OutboxPublisher
from saga_engine.worker.registry import SagaRegistry
from saga_engine.worker.transaction_runner import TransactionRunner
from saga_engine.worker.work_item import WorkBatch, WorkItem, as_delivery
from tests.kit.events import EventRecorder
from tests.kit.parcels import parcels
from tests.worker.recorded_statements import LosingDatabase, RecordingDatabase


async def batch_runner(engine, database, recorder=None, **changes) -> BatchRunner:
    """A batch runner of a worker without loops."""
    settings, saga = Settings(**changes), parcels()
    emit = Emitter(EventRecorder() if recorder is None else recorder)
    async with engine.database.transaction() as tx:
        ids = await definitions.register(tx, [saga])
        keys = await engine_identity.token_keys(tx)
    registry = SagaRegistry({ids[saga.name, saga.version]: saga})
    publisher = OutboxPublisher(await engine._publisher(), keys, settings.max_batch_bytes, emit)
    transactions = TransactionRunner(SqlStore(database), registry, publisher, settings, emit)
    return BatchRunner(transactions, emit)


def delivered_start(key=None, parcel=None) -> WorkItem:
    run_id = str(uuid7())
    start = Start(run_id, key, parcel or {})
    item = WorkItem(run_id=run_id, trigger=start, saga="parcel", version=1)
    return replace(item, delivery=as_delivery(item))


def succeeded(run_id, step) -> WorkItem:
    reply = ReplyReceived(
        step=step, direction=Direction.ACTION, attempt=1, outcome=Outcome.SUCCEEDED, body={}
    )
    return WorkItem(run_id=run_id, trigger=reply)


async def test_an_ordinary_step_is_one_statement_without_begin_and_commit(engine):
    await engine.start_participant()
    database = RecordingDatabase(engine.database)
    runner = await batch_runner(engine, database)
    starts = [delivered_start(f"key-{number}") for number in range(3)]
    await runner.process(WorkBatch(starts))
    assert "BEGIN" not in database.log, "new runs with new keys need no transaction"
    for step in ("pack", "send"):
        database.log.clear()
        await runner.process(WorkBatch([succeeded(each.run_id, step) for each in starts]))
        assert len(database.log) == 1, database.log
        assert "INSERT INTO saga_engine.journal" in database.log[0]
        assert "FOR UPDATE" not in database.log[0].replace("FOR UPDATE SKIP LOCKED", "")


@pytest.mark.parametrize("run_cache_bytes", [0, 300_000, 16_777_216])
async def test_a_batch_has_no_more_bytes_of_runs_than_a_setting_says(engine, run_cache_bytes):
    """Of five runs none, some or all are remembered; more than two are too large together."""
    await engine.start_participant()
    events, limits = EventRecorder(), {"max_batch_bytes": 65_536}
    runner = await batch_runner(
        engine, engine.database, events, run_cache_bytes=run_cache_bytes, **limits
    )
    starts = [delivered_start(parcel={"text": "x" * 30_000}) for _ in range(5)]
    for each in starts:
        await runner.process(WorkBatch([each]))
    before = len(events.matching(BatchProcessed))
    await runner.process(WorkBatch([succeeded(each.run_id, "pack") for each in starts]))
    sizes = [each.triggers for each in events.matching(BatchProcessed)[before:]]
    assert (sum(sizes), max(sizes)) == (5, 2)
    assert not events.matching(InternalErrorCaught)


async def pending_commands(engine):
    async with engine.database.transaction() as tx:
        return (await outbox.backlog(tx)).pending


async def test_an_unroutable_command_stays_in_the_outbox_until_it_is_decided(engine):
    first = await batch_runner(engine, engine.database)
    second = await batch_runner(engine, engine.database)
    start = delivered_start()
    await first.process(WorkBatch([start]))
    unroutable = WorkBatch(first._transactions._outbox_publisher.take_unroutable(10))
    assert len(unroutable.work_items) == await pending_commands(engine) == 1
    cancel = WorkItem(run_id=start.run_id, trigger=Cancel("ada", "too late"))
    await second.process(WorkBatch([cancel]))
    # The first worker remembers the run before its cancel, and loses it.
    remaining = await first._run_once(unroutable, LockStrategy.WAIT_FOR_LOCKS, 0)
    assert remaining.work_items == unroutable.work_items
    assert await pending_commands(engine) == 1, "this worker may end here"
    await first.process(remaining)
    assert await pending_commands(engine) == 0


async def repeated(engine):
    start = delivered_start()
    await (await batch_runner(engine, engine.database)).process(WorkBatch([start]))
    return start


async def with_a_reserved_key(engine):
    other = delivered_start("k")
    await (await batch_runner(engine, engine.database)).process(WorkBatch([other]))
    return delivered_start("k", {"other": "input"})


async def invalid(_engine):
    return delivered_start(parcel=["no", "object"])


async def admission_and_runner(engine):
    """A runner, and its admission, which counts the runs now and again after an hour."""
    runner = await batch_runner(engine, engine.database, max_concurrent_runs=5, poll_interval=3600)
    admission = runner._transactions.admission
    async with engine.database.transaction() as tx:
        await admission.refresh(SqlStoreTransaction(tx))
    return admission, runner


@pytest.mark.parametrize("make", [repeated, with_a_reserved_key, invalid])
async def test_a_start_that_becomes_no_run_gives_its_slot_back_at_once(engine, make):
    await engine.start_participant()
    start = await make(engine)
    admission, runner = await admission_and_runner(engine)
    free = admission._free_slots("parcel")
    await runner._run_once(WorkBatch([start]), LockStrategy.WAIT_FOR_LOCKS, 0)
    assert admission._free_slots("parcel") == free
    await runner.process(WorkBatch([delivered_start()]))
    assert admission._free_slots("parcel") == free - 1


async def test_starts_of_a_transaction_that_fails_give_their_slots_back(engine):
    admission, runner = await admission_and_runner(engine)
    rename = "ALTER TABLE saga_engine.{} RENAME TO {}"
    async with engine.database.transaction() as tx:
        await tx.execute(text(rename.format("journal", "other")))
    with pytest.raises(SchemaMismatch):
        await runner._run_once(WorkBatch([delivered_start()]), LockStrategy.WAIT_FOR_LOCKS, 0)
    assert admission._free_slots("parcel") == 5
    async with engine.database.transaction() as tx:
        await tx.execute(text(rename.format("other", "journal")))


async def test_a_run_that_another_worker_has_decided_is_read_again_and_decided_again(engine):
    await engine.start_participant()
    first = await batch_runner(engine, engine.database)
    second = await batch_runner(engine, engine.database)
    start = delivered_start()
    await first.process(WorkBatch([start]))
    await second.process(WorkBatch([succeeded(start.run_id, "pack")]))
    # The first worker remembers the run before its first reply: this one would be foreign to it.
    await first.process(WorkBatch([succeeded(start.run_id, "send")]))
    cancel = WorkItem(run_id=start.run_id, trigger=Cancel("ada", "too late"))
    await second.process(WorkBatch([cancel, succeeded(start.run_id, "notify")]))
    async with engine.database.transaction() as tx:
        stored = (await runs.read(tx, [start.run_id]))[start.run_id]
        events = await journal.read(tx, start.run_id)
    replies = [each.data["step"] for each in events if each.type == "step_succeeded"]
    assert replies[:3] == ["pack", "send", "notify"]
    assert stored.revision == len({each.revision for each in events}) == 4
    assert stored.run.status is not Status.COMPLETED


@pytest.mark.parametrize("losses", [0, 1])
async def test_a_batch_whose_answer_was_lost_goes_on_as_after_the_answer(engine, losses):
    """Not only the next steps: what has started is counted, and its command is published."""
    participant, events = await engine.start_participant(), EventRecorder()
    database = LosingDatabase(engine.database)
    runner = await batch_runner(engine, database, events)
    await runner.process(WorkBatch([delivered_start()]))  # it knows a row of the outbox now
    database.losses = losses
    starts = [delivered_start("order-1"), delivered_start()]
    assert await runner.process(WorkBatch(starts)) == []
    assert len(await participant.wait_for_commands("parcel.pack", 3)) == 3
    assert len(events.matching(RunStarted)) == 3
    assert len(events.matching(DatabaseUnavailable)) == losses
    await runner.process(WorkBatch([succeeded(each.run_id, "pack") for each in starts]))
    assert len(events.matching(AttemptFinished)) == 2
    async with engine.database.transaction() as tx:
        stored = await runs.read(tx, [each.run_id for each in starts])
    assert [each.revision for each in stored.values()] == [2, 2]


async def test_a_batch_that_was_not_committed_is_decided_again(engine):
    await engine.start_participant()
    database, events = LosingDatabase(engine.database), EventRecorder()
    runner = await batch_runner(engine, database, events)
    start, other = delivered_start(), delivered_start()
    await runner.process(WorkBatch([start]))
    database.losses = 1
    cancel = WorkItem(run_id=start.run_id, trigger=Cancel("ada", "too late"))
    dead_letter = WorkItem(run_id=other.run_id, trigger=succeeded(other.run_id, "pack").trigger)
    # The answer to `unknown_run` makes the batch a transaction, which the loss rolls back.
    await runner.process(WorkBatch([cancel, replace(dead_letter, delivery=as_delivery(other))]))
    async with engine.database.transaction() as tx:
        assert (await runs.read(tx, [start.run_id]))[start.run_id].revision == 2
    assert len(events.matching(DatabaseUnavailable)) >= 1
    assert len(events.matching(MessageDeadLettered)) == 1
