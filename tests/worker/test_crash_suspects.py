"""Crash suspects: processed alone, and without the call once it has ended two workers."""

from sqlalchemy import text

from saga_engine.decider.triggers import ResolveIncident
from saga_engine.identifiers import uuid7
from saga_engine.store import audit, crash_suspects, pending_requests
from saga_engine.store.audit import ActionKind, OperatorAction
from saga_engine.store.crash_suspects import CrashSuspect
from saga_engine.store.pending_requests import NewRequest, RequestKind
from saga_engine.telemetry.events import (
    BatchProcessed,
    IncidentOpened,
    IncidentResolved,
    MessageDeadLettered,
    OperatorActionProcessed,
    UserCodeFailed,
)
from saga_engine.vocabulary import Resolution, Status
from tests.kit.engine import no_reply
from tests.worker.boxes import (
    COMMANDS,
    FAST_RESEND,
    SHORT_TIMEOUT,
    boxes,
    record_crashes,
    store_start,
)
from tests.worker.steps import audit_outcome, record_operator_action


async def read_suspects(engine):
    async with engine.database.transaction() as tx:
        return await crash_suspects.read_all(tx)


async def test_a_mapping_that_exits_opens_an_incident_and_other_runs_complete(engine):
    await engine.start_participant(COMMANDS)
    worker, client = await engine.start_worker(boxes()), await engine.connect_client()
    run_ids = [str(uuid7()) for _ in range(20)]
    broken = run_ids[7]
    given = {each: {"exits": "4111"} if each == broken else {} for each in run_ids}
    starts = [("start", {"run_id": each, "saga": "box", "input": given[each]}) for each in given]
    await client.call_all(*starts)
    for run_id in run_ids:
        if run_id != broken:
            assert await worker.events.wait_for_end(run_id) is Status.COMPLETED
    assert (await worker.events.wait_for_incident(broken)).cause == "mapping_failed"
    [failed] = worker.events.matching(UserCodeFailed)
    assert (failed.saga, failed.run_id, failed.step) == ("box", broken, "send")
    assert (failed.command, failed.function) == ("box.send", "send")
    assert failed.problem.startswith("raised SystemExit at ")
    assert "4111" not in failed.problem


async def test_a_call_that_ended_two_workers_is_made_again_only_after_a_retry(engine):
    saga, run_id = boxes(), str(uuid7())
    await engine.start_participant(COMMANDS)
    await record_crashes(engine, run_id, "send", "send", times=2)
    worker, client = await engine.start_worker(saga, **FAST_RESEND), await engine.connect_client()
    other = await client.start("box")
    await client.start("box", run_id=run_id)
    incident = await worker.events.wait_for_incident(run_id)
    assert (incident.step, incident.cause) == ("send", "mapping_failed")
    assert await worker.events.wait_for_end(other) is Status.COMPLETED
    assert saga.calls.count("send") == 1
    letter = await worker.events.wait_for_dead_letter("code_killed_worker", run_id=run_id)
    assert letter.queue == "saga.replies"
    assert (await read_suspects(engine))[run_id].crash_count == 2
    retry = ResolveIncident(
        incident_number=1, resolution=Resolution.RETRY, operator="ada", reason="deployed"
    )
    audit_id = await record_operator_action(engine, run_id, retry)
    assert await worker.events.wait_for_end(run_id) is Status.COMPLETED
    assert await audit_outcome(engine, audit_id) == ("accepted", "The run is running.")
    assert await read_suspects(engine) == {}


async def test_a_retry_by_an_operator_may_end_two_more_workers(engine):
    run_id, audit_id = str(uuid7()), str(uuid7())
    await record_crashes(engine, run_id, "send", "send", times=2)
    async with engine.database.transaction() as tx:
        await audit.record(
            tx,
            [
                OperatorAction(
                    id=audit_id,
                    operator="ada",
                    action=ActionKind.RETRY,
                    reason="deployed",
                    run_id=run_id,
                )
            ],
        )
        retry = {"resolution": "retry"}
        await pending_requests.record(
            tx, [NewRequest(kind=RequestKind.RESOLVE, run_id=run_id, body=retry, audit_id=audit_id)]
        )
    times = []
    for _ in range(3):
        async with engine.database.transaction() as tx:
            await crash_suspects.allow_retry(tx, run_id)
        times.append((await read_suspects(engine))[run_id].crash_count)
        await record_crashes(engine, run_id, "send", "send", times=1)
    assert times == [0, 1, 2]


async def test_a_timer_whose_call_ended_two_workers_opens_an_incident(engine):
    saga = boxes(SHORT_TIMEOUT)
    participant = await engine.start_participant(COMMANDS)
    participant.reply_makers["box.pack"] = no_reply
    run_id = str(uuid7())
    await record_crashes(engine, run_id, "pack", "unpack", direction="compensation", times=2)
    worker, client = await engine.start_worker(saga, **FAST_RESEND), await engine.connect_client()
    await client.start("box", run_id=run_id)
    await participant.wait_for_commands("box.pack")
    incident = await worker.events.wait_for_incident(run_id)
    assert (incident.step, incident.direction) == ("pack", "compensation")
    assert (incident.cause, saga.calls) == ("mapping_failed", ["pack"])


async def test_a_suspect_whose_call_returns_is_cleared(engine):
    await engine.start_participant(COMMANDS)
    async with engine.database.transaction() as tx:
        run_id = await store_start(engine, tx)
        await crash_suspects.record_crash(
            tx, CrashSuspect(run_id=run_id, step="pack", direction="action", function="pack")
        )
    worker = await engine.start_worker(boxes(), **FAST_RESEND)
    assert await worker.events.wait_for_end(run_id) is Status.COMPLETED
    assert await read_suspects(engine) == {}


async def test_a_start_whose_validator_ended_two_workers_is_refused(engine):
    run_id = str(uuid7())
    await engine.start_participant(COMMANDS)
    await record_crashes(engine, run_id, "", "dict", direction="", times=2)
    worker, client = (
        await engine.start_worker(boxes(), **FAST_RESEND),
        await engine.connect_client(),
    )
    answer = await client.call("start", run_id=run_id, saga="box", input={})
    assert answer.outcome == "invalid"
    assert "ended 2 worker processes" in answer.refusal.message
    await worker.events.wait_for_dead_letter("code_killed_worker", run_id=run_id)
    assert worker.events.matching(MessageDeadLettered, reason="invalid_input") == []


async def test_a_suspect_is_processed_in_its_own_batch(engine):
    await engine.start_participant(COMMANDS)
    run_ids = [str(uuid7()) for _ in range(10)]
    await record_crashes(engine, run_ids[4], "pack", "pack", times=1)
    worker, client = (
        await engine.start_worker(boxes(), poll_interval=60.0),
        await engine.connect_client(),
    )
    starts = [("start", {"run_id": each, "saga": "box", "input": {}}) for each in run_ids]
    await client.call_all(*starts)
    for run_id in run_ids:
        assert await worker.events.wait_for_end(run_id) is Status.COMPLETED
    assert worker.events.matching(IncidentOpened) == []
    assert await worker.events.wait_for(BatchProcessed, triggers=1)
    assert (
        worker.events.matching(IncidentResolved) + worker.events.matching(OperatorActionProcessed)
        == []
    )


async def test_suspects_of_finished_or_unstarted_runs_are_deleted_after_a_day(engine):
    await engine.start_participant(COMMANDS)
    worker, client = await engine.start_worker(boxes()), await engine.connect_client()
    done = await client.start("box")
    await worker.events.wait_for_end(done)
    never, fresh = str(uuid7()), str(uuid7())
    for each in (done, never, fresh):
        await record_crashes(engine, each, "send", "send", times=1)
    async with engine.database.transaction() as tx:
        old = (
            "UPDATE saga_engine.crash_suspect SET last_crash_at = last_crash_at - interval '2 days'"
            " WHERE run_id <> :fresh"
        )
        await tx.execute(text(old), {"fresh": fresh})
        await crash_suspects.delete_expired(tx)
    assert list(await read_suspects(engine)) == [fresh]
