"""What several tests of the worker do: operator actions, damaged rows, the duties of a worker."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from saga_engine.decider.run import Run
from saga_engine.decider.triggers import ResolveIncident
from saga_engine.identifiers import uuid7
from saga_engine.settings import Settings
from saga_engine.store import (
    audit,
    checked_requests,
    definitions,
    engine_identity,
)
from saga_engine.store.audit import ActionKind, OperatorAction
from saga_engine.store.pending_requests import NewRequest
from saga_engine.store.sql_store import SqlStore
from saga_engine.store.trigger_data import serialize_trigger
from saga_engine.telemetry.events import (
    Emitter,
)
from saga_engine.vocabulary import Status
from saga_engine.worker.duties import Duties
from saga_engine.worker.outbox_publisher import OutboxPublisher
from saga_engine.worker.registry import SagaRegistry
from saga_engine.worker.transaction_runner import TransactionRunner
from tests.kit.engine import no_reply, succeed
from tests.kit.events import EventRecorder
from tests.kit.parcels import parcels
from tests.kit.promises import check_promises


async def idle_duties(engine, database=None) -> Duties:
    """The duties of a worker that is not running, with another way to its database if given."""
    recorder, settings, saga = EventRecorder(), Settings(), parcels()
    async with engine.database.transaction() as tx:
        ids = await definitions.register(tx, [saga])
        keys = await engine_identity.token_keys(tx)
    registry = SagaRegistry({ids[saga.name, saga.version]: saga})
    outbox_publisher = OutboxPublisher(
        await engine._publisher(), keys, settings.max_batch_bytes, Emitter(recorder)
    )
    store = SqlStore(engine.database if database is None else database)
    emit = Emitter(recorder)
    transactions = TransactionRunner(store, registry, outbox_publisher, settings, emit)
    return Duties(store, registry, transactions, outbox_publisher, settings, emit)


SHORT_TIMEOUT = timedelta(milliseconds=300)


async def record_operator_action(engine, run_id, trigger):
    """Record an operator action as the command line does; return its audit id."""
    audit_id = str(uuid7())
    kind, body = serialize_trigger(trigger)
    action = trigger.resolution.value if isinstance(trigger, ResolveIncident) else kind
    async with engine.database.transaction() as tx:
        await audit.record(
            tx,
            [
                OperatorAction(
                    id=audit_id,
                    operator=trigger.operator,
                    action=ActionKind(action),
                    reason=trigger.reason,
                    run_id=run_id,
                )
            ],
        )
        await checked_requests.record_operator_requests(
            tx, [NewRequest(kind=kind, run_id=run_id, body=body, audit_id=audit_id)]
        )
    return audit_id


async def audit_outcome(engine, audit_id):
    async with engine.database.transaction() as tx:
        found = await audit.find(tx, audit_id)
    assert found is not None
    return found.outcome, found.message


async def damage_run(engine, run_id):
    async with engine.database.transaction() as tx:
        await tx.execute(
            text(
                "UPDATE saga_engine.journal SET events = '[7]' WHERE run_id = CAST(:run_id AS uuid)"
            ),
            {"run_id": run_id},
        )


async def lose_last_row(engine, run_id):
    """Delete the last row of a journal: no batch can append the next one."""
    last_row = text(
        """
        DELETE FROM saga_engine.journal
        WHERE run_id = CAST(:run_id AS uuid) AND revision = (
            SELECT max(revision) FROM saga_engine.journal WHERE run_id = CAST(:run_id AS uuid))"""
    )
    async with engine.database.transaction() as tx:
        await tx.execute(last_row, {"run_id": run_id})


async def delete_run(engine, run_id):
    """Delete a damaged run, which cannot keep the promises."""
    async with engine.database.transaction() as tx:
        for table in ("journal", "outbox", "run"):
            await tx.execute(
                text(f"DELETE FROM saga_engine.{table} WHERE run_id = CAST(:run_id AS uuid)"),
                {"run_id": run_id},
            )


async def check_a_run_completes(engine, worker, participant, client):
    """Check that another run still completes."""
    participant.reply_makers["parcel.send"] = succeed
    assert await worker.events.wait_for_end(await client.start()) == Status.COMPLETED
    await check_promises(engine.database, settled=False)


NOW = datetime(2026, 11, 25, tzinfo=UTC)

UNDONE = Run(
    run_id="r-1",
    saga="parcel",
    version=1,
    fingerprint="f",
    key=None,
    input={},
    started_at=NOW,
    deadline=None,
    status=Status.COMPENSATED,
    finished_at=NOW,
)
"""A run that was compensated, in memory only."""

HOLD_BATCHES = text("LOCK TABLE saga_engine.journal IN EXCLUSIVE MODE")
"""Until the end of the transaction a batch reads, and waits before it appends."""

LOCK_RUNS = text(
    "SELECT FROM saga_engine.run WHERE run_id = ANY (CAST(:run_ids AS uuid[])) FOR UPDATE"
)


async def runs_in_flight(client, participant, number):
    """Start runs that wait for a reply; return their ids and the replies, not published yet."""
    participant.reply_makers["parcel.send"] = no_reply
    run_ids = [await client.start() for _ in range(number)]
    commands = await participant.wait_for_commands("parcel.send", number)
    return run_ids, [reply for command in commands for reply in succeed(command)]
