"""Pending requests: locks and bugs of one request do not block the others."""

import asyncio
import json
from collections import Counter
from dataclasses import replace
from typing import Any

from sqlalchemy import text

from saga_engine.client import start_in_transaction
from saga_engine.decider.triggers import Cancel, ResolveIncident
from saga_engine.identifiers import uuid7
from saga_engine.store import (
    audit,
    dead_letter_queries,
    pending_requests,
)
from saga_engine.store.audit import ActionKind, OperatorAction
from saga_engine.store.pending_requests import NewRequest, RequestKind
from saga_engine.store.trigger_data import serialize_trigger
from saga_engine.telemetry.events import (
    MessageDeadLettered,
    OperatorActionProcessed,
    RunStarted,
)
from saga_engine.vocabulary import Resolution, Status
from tests.kit.engine import no_reply, reject, succeed
from tests.kit.parcels import COMMANDS
from tests.kit.programs import wait_until_true
from tests.worker.recorded_statements import RecordingDatabase
from tests.worker.steps import (
    LOCK_RUNS,
    audit_outcome,
    damage_run,
    delete_run,
    idle_duties,
    record_operator_action,
    runs_in_flight,
)

LOCK = text("SELECT FROM saga_engine.run WHERE run_id = CAST(:run_id AS uuid) FOR UPDATE")


DUE = text(
    "UPDATE saga_engine.run SET wake_at = clock_timestamp() WHERE run_id = CAST(:run_id AS uuid)"
)


CHANGE_ROWS = {"database_lock_timeout": 0.5, "run_snapshot_interval": 1}
"""The second decision writes a snapshot, so it needs the row of the run; it does not wait long."""


DEFERRED_COUNT = text(
    "SELECT count(*) FROM saga_engine.pending_request WHERE not_before IS NOT NULL"
)


async def test_a_request_for_a_locked_run_locks_no_other_run(engine):
    worker = await engine.start_worker(**CHANGE_ROWS)
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.pack"] = no_reply
    first, second = sorted([await client.start(), await client.start()])
    await participant.wait_for_commands("parcel.pack", 2)
    kind, body = serialize_trigger(Cancel("ada", "because"))
    async with engine.database.transaction() as other:
        await other.execute(LOCK, {"run_id": first})
        async with engine.database.transaction() as tx:
            await tx.execute(DUE, {"run_id": second})
            await pending_requests.record(tx, [NewRequest(kind=kind, run_id=first, body=body)])
        await wait_for_a_deferred_request(engine)
        # Its timer may lock it for a short time; the request for the first run does not.
        await other.execute(LOCK, {"run_id": second})
    [command] = [each for each in participant.received if each.command.run_id == first]
    await participant.publish(*reject(command))
    assert await worker.events.wait_for_end(first) == Status.COMPENSATED


async def wait_for_a_deferred_request(engine):
    async with asyncio.timeout(60):
        waits = 0
        while not waits:
            async with engine.database.transaction() as tx:
                waits = (await tx.execute(DEFERRED_COUNT)).scalar_one()


async def test_one_at_a_time_starts_and_other_requests_alternate(engine):
    """While a request breaks the batch, requests are processed one at a time."""
    duties = await idle_duties(engine)
    async with engine.database.transaction() as tx:
        kind, body = serialize_trigger(Cancel("ada", "because"))
        await pending_requests.record(
            tx, [NewRequest(kind=kind, run_id=str(uuid7()), body=body) for _ in range(9)]
        )
        await start_in_transaction(tx.connection, "parcel", {})
    for _ in range(2):
        assert await duties.pending_requests._process_oldest()
    async with engine.database.transaction() as tx:
        left = (await tx.execute(text("SELECT kind FROM saga_engine.pending_request"))).scalars()
        assert Counter(left) == {"cancel": 8}


LOCK_INCIDENTS = text(
    "SELECT FROM saga_engine.incident WHERE run_id = ANY (CAST(:run_ids AS uuid[])) FOR UPDATE"
)


async def test_locked_incidents_do_not_block_starts(engine):
    worker = await engine.start_worker(database_lock_timeout=1.5)  # longer than LOCK_RETRY_DELAY
    await engine.start_participant(COMMANDS[2:])  # no queue for parcel.pack
    client = await engine.connect_client()
    stuck = [await client.start() for _ in range(2)]
    for each in stuck:
        await worker.events.wait_for_incident(each)
    async with engine.database.transaction() as tx:
        await tx.execute(LOCK_INCIDENTS, {"run_ids": stuck})
        for each in stuck:
            await record_operator_action(
                engine,
                each,
                ResolveIncident(
                    incident_number=1, resolution=Resolution.SKIP, operator="ada", reason="because"
                ),
            )
        for _ in range(3):
            async with engine.database.transaction() as own:
                mine = await start_in_transaction(own.connection, "parcel", {}, key=str(uuid7()))
            await worker.events.wait_for(RunStarted, run_id=str(mine.run_id))
        assert not worker.events.matching(OperatorActionProcessed)
    await worker.events.wait_for(OperatorActionProcessed, 2, accepted=True)


async def test_a_request_for_a_damaged_run_is_refused_and_blocks_no_other(engine):
    worker, participant, client = (
        await engine.start_worker(run_cache_bytes=0),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    participant.reply_makers["parcel.send"] = no_reply
    damaged, other = await client.start(), await client.start()
    sent = await participant.wait_for_commands("parcel.send", 2)
    [command] = [each for each in sent if each.command.run_id == other]
    await damage_run(engine, damaged)
    first = await record_operator_action(engine, damaged, Cancel("ada", "it looks odd"))
    second = await record_operator_action(engine, other, Cancel("ada", "this one too"))
    await worker.events.wait_for(OperatorActionProcessed, run_id=other, accepted=True)
    await worker.events.wait_for(OperatorActionProcessed, run_id=damaged, accepted=False)
    assert (await audit_outcome(engine, first))[0] == "refused"
    assert (await audit_outcome(engine, second))[0] == "accepted"
    await participant.publish(*succeed(command))
    assert await worker.events.wait_for_end(other) == Status.COMPENSATED
    await delete_run(engine, damaged)


async def test_an_unreadable_request_is_dead_lettered_and_blocks_no_other(engine):
    worker, _, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    audit_id, run_id = str(uuid7()), str(uuid7())
    malformed: dict[str, Any] = {
        "resolve": {"what": 1},
        "start": {},
        "reply": {"step": "x"},
        "cancel": [],
    }
    async with engine.database.transaction() as tx:
        await audit.record(
            tx,
            [
                OperatorAction(
                    id=audit_id,
                    operator="ada",
                    action=ActionKind.RETRY,
                    reason="because",
                    run_id=run_id,
                )
            ],
        )
        items = [
            NewRequest(kind=RequestKind(kind), run_id=run_id, body=body, saga="parcel")
            for kind, body in malformed.items()
        ]
        await pending_requests.record(tx, [replace(items[0], audit_id=audit_id), *items[1:]])
        mine = await start_in_transaction(tx.connection, "parcel", {}, key="k")
    assert await worker.events.wait_for_end(str(mine.run_id)) == Status.COMPLETED
    await worker.events.wait_for(OperatorActionProcessed, run_id=run_id, accepted=False)
    await worker.events.wait_for(MessageDeadLettered, len(malformed), reason="bad_request")
    async with engine.database.transaction() as tx:
        found = await dead_letter_queries.read_page(tx, limit=10)
        stored = [await dead_letter_queries.find(tx, each.id) for each in found]
    letters = [each.message for each in stored if each is not None]
    assert len(letters) == len(found)
    assert {each.type: json.loads(each.body) for each in letters} == malformed
    assert await worker.events.wait_for_end(await client.start()) == Status.COMPLETED


async def test_a_batch_of_requests_looks_for_no_locks_and_opens_one_connection(engine):
    worker = await engine.start_worker()
    participant, client = await engine.start_participant(), await engine.connect_client()
    run_ids, _ = await runs_in_flight(client, participant, 2)
    await worker.stop()
    for each in run_ids:
        await record_operator_action(engine, each, Cancel("ada", "too late"))
    database = RecordingDatabase(engine.database)
    duties = await idle_duties(engine, database)
    assert await duties.pending_requests.process()
    assert sum("INSERT INTO saga_engine.journal" in each for each in database.log) == 1
    taking = [each for each in database.log if "SKIP LOCKED" in each and "INSERT" not in each]
    assert all("saga_engine.pending_request" in each for each in taking)
    assert database.most_open == 1


async def test_a_cancel_that_changes_nothing_in_the_row_of_its_run_waits_for_no_lock(engine):
    worker = await engine.start_worker(database_lock_timeout=600.0)
    participant, client = await engine.start_participant(), await engine.connect_client()
    [run_id], _ = await runs_in_flight(client, participant, 1)
    async with engine.database.transaction() as tx:
        await tx.execute(LOCK_RUNS, {"run_ids": [run_id]})
        await record_operator_action(engine, run_id, Cancel("ada", "too late"))
        await worker.events.wait_for(OperatorActionProcessed, run_id=run_id, accepted=True)


async def test_a_request_for_a_locked_run_delays_no_request_for_another_run(engine):
    worker = await engine.start_worker(**CHANGE_ROWS)
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.pack"] = no_reply
    held, *others = [await client.start() for _ in range(3)]
    await participant.wait_for_commands("parcel.pack", 3)
    async with engine.database.transaction() as tx:
        await tx.execute(LOCK_RUNS, {"run_ids": [held]})
        for each in (held, *others):
            await record_operator_action(engine, each, Cancel("ada", "too late"))
        for each in others:
            await worker.events.wait_for(OperatorActionProcessed, run_id=each, accepted=True)
        assert not worker.events.matching(OperatorActionProcessed, run_id=held)
    await worker.events.wait_for(OperatorActionProcessed, run_id=held, accepted=True)


async def test_a_worker_with_one_connection_to_the_database_processes_a_cancel(engine):
    worker = await engine.start_worker(database_pool_size=1)
    participant, client = await engine.start_participant(), await engine.connect_client()
    [run_id], _ = await runs_in_flight(client, participant, 1)
    participant.reply_makers["parcel.send"] = succeed
    await record_operator_action(engine, run_id, Cancel("ada", "too late"))
    await worker.events.wait_for(OperatorActionProcessed, run_id=str(run_id))


async def test_locked_runs_do_not_block_pending_starts(engine):
    worker, participant = (
        await engine.start_worker(database_lock_timeout=1.5),
        await engine.start_participant(),
    )
    client = await engine.connect_client()
    kept, replies = await runs_in_flight(client, participant, 2)
    async with engine.database.transaction() as tx:
        await tx.execute(LOCK_RUNS, {"run_ids": kept})
        await participant.publish(*replies)
        participant.reply_makers.clear()
        await wait_until_true(lambda: _pending_request_count_reached(engine.database, 2))
        for _ in range(3):
            async with engine.database.transaction() as own:
                mine = await start_in_transaction(
                    own.connection, "parcel", {"to": "Ada"}, key=str(uuid7())
                )
            assert await worker.events.wait_for_end(str(mine.run_id))
    for each in kept:
        assert await worker.events.wait_for_end(each) == "completed"


async def _pending_request_count_reached(database, number):
    async with database.transaction() as tx:
        found = await tx.execute(text("SELECT count(*) FROM saga_engine.pending_request"))
        return found.scalar_one() >= number
