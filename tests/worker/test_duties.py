"""What a worker's periodic duties owe to everybody else who works on the same rows."""

import asyncio
from collections import Counter

import pytest
from sqlalchemy import text

from saga_engine.client import start_in_transaction
from saga_engine.decider.triggers import Cancel, serialize_trigger
from saga_engine.errors import StoreUnavailable
from saga_engine.identifiers import uuid7
from saga_engine.postgres import pgbouncer
from saga_engine.settings import Settings
from saga_engine.store import definitions, engine_identity, outbox, pending_requests
from saga_engine.store.pending_requests import NewRequest
from saga_engine.telemetry.events import AttemptFinished, Emitter, InternalErrorCaught
from saga_engine.vocabulary import Outcome, Status
from saga_engine.worker.batch_runner import BatchRunner
from saga_engine.worker.duties import Duties
from saga_engine.worker.outbox_publisher import OutboxPublisher
from saga_engine.worker.registry import SagaRegistry
from tests.kit.engine import EventRecorder, no_reply, reject
from tests.kit.parcels import parcels

LOCK = text("SELECT FROM saga_engine.run WHERE run_id = CAST(:run_id AS uuid) FOR UPDATE")
DUE = text(
    "UPDATE saga_engine.run SET wake_at = clock_timestamp() WHERE run_id = CAST(:run_id AS uuid)"
)
PUT_BY = text("SELECT count(*) FROM saga_engine.pending_request WHERE not_before IS NOT NULL")


async def test_a_request_for_a_run_that_is_held_waits_without_holding_another(engine):
    worker = await engine.start_worker(
        database_lock_timeout=600.0, database_transaction_timeout=600.0
    )
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.pack"] = no_reply
    first, second = sorted([await client.start(), await client.start()])
    await participant.wait_for_commands("parcel.pack", 2)
    kind, body = serialize_trigger(Cancel("ada", "because"))
    async with engine.database.transaction() as other:
        await other.execute(LOCK, {"run_id": first})
        async with engine.database.transaction() as tx:
            await tx.execute(DUE, {"run_id": second})
            await pending_requests.record(tx, [NewRequest(kind, first, body)])
        await eventually_one_is_put_by(engine)
        # Its timer may have it for one short turn, never while what waits for the first is open.
        await other.execute(LOCK, {"run_id": second})
    [command] = [each for each in participant.received if str(each.command.run_id) == first]
    await participant.publish(*reject(command))
    assert await worker.events.wait_for_end(first) == Status.COMPENSATED


async def test_a_command_that_the_run_takes_for_undelivered_is_never_sent_again(engine):
    worker, client = (
        await engine.start_worker(outbox_cleanup_interval=600.0),
        await engine.connect_client(),
    )
    run_id = await client.start()
    await worker.events.wait_for_incident(run_id, cause="unroutable")
    async with engine.database.transaction() as tx:
        assert (await outbox.backlog(tx)).pending == 0


async def a_run_that_is_due(engine):
    """Its command was sent once and not answered, and no worker is there."""
    worker, participant, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    participant.reply_makers["parcel.pack"] = no_reply
    run_id = await client.start()
    await participant.wait_for_commands("parcel.pack")
    await worker.stop()
    async with engine.database.transaction() as tx:
        await tx.execute(OVERDUE, {"run_id": run_id})
    return participant


async def test_timers_fire_while_the_recorded_requests_cannot_even_be_looked_at(engine):
    """They come first, and their transaction is over before that of the requests begins."""
    await a_run_that_is_due(engine)
    async with engine.database.transaction() as other:
        await other.execute(text("LOCK TABLE saga_engine.pending_request IN ACCESS EXCLUSIVE MODE"))
        worker = await engine.start_worker(
            database_lock_timeout=600.0, database_transaction_timeout=600.0
        )
        await worker.events.wait_for(AttemptFinished, step="pack", outcome=Outcome.UNKNOWN)
    await worker.stop()


async def test_timers_fire_while_every_attempt_to_take_recorded_requests_fails(engine):
    participant = await a_run_that_is_due(engine)
    async with engine.database.transaction() as tx:
        for statement in REFUSE:
            await tx.execute(text(statement))
        kind, body = serialize_trigger(Cancel("ada", "because"))
        await pending_requests.record(
            tx, [NewRequest(kind, str(uuid7()), body) for _ in range(500)]
        )
    worker = await engine.start_worker()
    await worker.events.wait_for(InternalErrorCaught)
    assert len(await participant.wait_for_commands("parcel.pack", 2)) == 2
    await worker.stop()


OVERDUE = text(
    "UPDATE saga_engine.run SET wake_at = clock_timestamp() - interval '1 hour', state = jsonb_set("
    "state, '{steps,pack,action,due_at}', '\"2020-01-01T00:00:00+00:00\"')"
    " WHERE run_id = CAST(:run_id AS uuid)"
)

REFUSE = (
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''No.''; END'",
    "CREATE TRIGGER stays BEFORE DELETE ON saga_engine.pending_request EXECUTE FUNCTION refuse()",
)


async def eventually_one_is_put_by(engine):
    async with asyncio.timeout(60):
        waits = 0
        while not waits:
            async with engine.database.transaction() as tx:
                waits = (await tx.execute(PUT_BY)).scalar_one()


async def test_a_start_has_its_turn_however_many_cancels_come(engine):
    """While something breaks the batch, what was recorded is taken one at a time."""
    duties = await duties_of(engine)
    async with engine.database.transaction() as tx:
        kind, body = serialize_trigger(Cancel("ada", "because"))
        await pending_requests.record(tx, [NewRequest(kind, str(uuid7()), body) for _ in range(9)])
        await start_in_transaction(tx.connection, "parcel", {})
    for _ in range(2):
        assert await duties.pending_requests._process_oldest()
    async with engine.database.transaction() as tx:
        left = (await tx.execute(text("SELECT kind FROM saga_engine.pending_request"))).scalars()
        assert Counter(left) == {"cancel": 8}


async def test_a_worker_finds_out_by_two_statements_that_nothing_waits(engine, monkeypatch):
    """It asks many times a second."""
    duties, said = await duties_of(engine), []

    def spied(name):
        original = getattr(pgbouncer.PoolerAwareConnection, name)

        async def say(self, statement, *arguments, **options):
            said.append(str(statement).split()[0].strip(";"))
            return await original(self, statement, *arguments, **options)

        monkeypatch.setattr(pgbouncer.PoolerAwareConnection, name, say)

    spied("execute")
    spied("run")
    assert not await duties.process_due_and_pending()
    assert said == ["BEGIN", "SELECT", "SELECT", "COMMIT"]


async def test_a_server_that_takes_no_writes_is_found_out_although_nothing_waits(engine):
    """After a failover the old connections may lead to a standby."""
    duties = await duties_of(engine)
    read_only = text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
    async with engine.database.transaction() as tx:
        await tx.execute(read_only)
    with pytest.raises(StoreUnavailable, match="25006"):
        await duties.process_due_and_pending()
    assert not await duties.process_due_and_pending(), "over a new connection"


async def test_commands_that_no_run_awaits_do_not_slow_down_the_sweep(engine):
    """They are deleted, which shows as well that a sweep of that size comes through."""
    worker = await engine.start_worker()
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.pack"] = no_reply
    run_id = await client.start()
    await participant.wait_for_commands("parcel.pack")
    await worker.stop()
    async with engine.database.transaction() as tx:
        await tx.execute(text("DELETE FROM saga_engine.outbox"))
        await tx.execute(UNAWAITED, {"run_id": run_id})
    duties = await duties_of(engine)
    duties.outbox._resend_limit.size = 1
    sizes = []
    while await duties.outbox.resend_unconfirmed():
        sizes.append(duties.outbox._resend_limit.size)
    assert sizes == [2, 3, 3]
    async with engine.database.transaction() as tx:
        assert (await outbox.backlog(tx)).pending == 0


UNAWAITED = text(
    """
    INSERT INTO saga_engine.outbox (run_id, due_at, version, attempt, saga, step, direction,
        command, idempotency_key, payload, created_at)
    SELECT CAST(:run_id AS uuid), now(), 1, attempt, 'parcel', 'pack', 'action', 'parcel.pack',
        'key', '{}', now() - interval '1 hour'
    FROM generate_series(2, 6) AS attempt"""
)


async def duties_of(engine) -> Duties:
    """The duties of a worker that does nothing by itself."""
    facts, settings, saga = EventRecorder(), Settings(), parcels()
    async with engine.database.transaction() as tx:
        ids = await definitions.register(tx, [saga])
        keys = await engine_identity.token_keys(tx)
    catalogue = SagaRegistry({ids[saga.name, saga.version]: saga})
    outbound = OutboxPublisher(
        await engine._publisher(), keys, settings.max_batch_bytes, Emitter(facts)
    )
    common = (engine.database, catalogue)
    turnover = BatchRunner(*common, outbound, settings, Emitter(facts))
    return Duties(*common, turnover, outbound, settings, Emitter(facts))
