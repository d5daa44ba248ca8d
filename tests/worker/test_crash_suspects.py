"""Runs whose code has ended a worker: taken alone, and in the end without that code."""

import asyncio
import sys
from datetime import timedelta

from sqlalchemy import text

from saga_engine import Retry, Saga
from saga_engine.client import start_in_transaction
from saga_engine.decider.triggers import ResolveIncident
from saga_engine.identifiers import uuid7
from saga_engine.store import audit, crash_suspects, pending_requests, runs
from saga_engine.store.audit import OperatorAction
from saga_engine.store.crash_suspects import CrashSuspect
from saga_engine.store.pending_requests import NewRequest, ReadLimits
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
from tests.worker.test_failures import operate, verdict

QUICKLY = {"outbox_resend_after": 0.2}
COMMANDS = ("box.pack", "box.unpack", "box.send")
SOON = timedelta(milliseconds=300)


class Boxes(Saga):
    """A saga that notes the `calls` of its mappings."""

    calls: list[str]


def boxes(timeout: timedelta = timedelta(minutes=1)) -> Boxes:
    """Two steps, the first with a compensation; their mappings count how often they are called."""
    saga = Boxes("box", version=1, input=dict)
    saga.calls = []

    @saga.step(command="box.pack", timeout=timeout, retry=Retry(attempts=1))
    def pack(box: dict) -> dict:  # noqa: ARG001 - it is bound by its name
        saga.calls.append("pack")
        return {}

    @pack.compensation(command="box.unpack")
    def unpack(box: dict) -> dict:  # noqa: ARG001 - the same
        saga.calls.append("unpack")
        return {}

    @saga.step(command="box.send", read_only=True)
    def send(box: dict) -> dict:
        saga.calls.append("send")
        if box.get("exits"):
            sys.exit(box["exits"])
        return {}

    return saga


async def accuse(engine, run_id, step, function, *, times, direction="action"):
    """Have it on record that a call has ended workers, as their overseers record it."""
    async with engine.database.transaction() as tx:
        for _ in range(times):
            await crash_suspects.record_crash(tx, CrashSuspect(run_id, step, direction, function))


async def accused(engine):
    async with engine.database.transaction() as tx:
        return await crash_suspects.read_all(tx)


async def test_a_mapping_that_exits_is_an_incident_and_a_line_and_its_neighbours_complete(engine):
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


async def test_a_call_that_ended_two_workers_is_made_again_only_for_a_person(engine):
    saga, run_id = boxes(), str(uuid7())
    await engine.start_participant(COMMANDS)
    await accuse(engine, run_id, "send", "send", times=2)
    worker, client = await engine.start_worker(saga, **QUICKLY), await engine.connect_client()
    other = await client.start("box")
    await client.start("box", run_id=run_id)
    incident = await worker.events.wait_for_incident(run_id)
    assert (incident.step, incident.cause) == ("send", "mapping_failed")
    assert await worker.events.wait_for_end(other) is Status.COMPLETED
    assert saga.calls.count("send") == 1
    letter = await worker.events.wait_for_dead_letter("code_killed_worker", run_id=run_id)
    assert letter.queue == "saga.replies"
    assert (await accused(engine))[run_id].crash_count == 2
    retry = ResolveIncident(1, Resolution.RETRY, "ada", "deployed")
    audit_id = await operate(engine, run_id, retry)
    assert await worker.events.wait_for_end(run_id) is Status.COMPLETED
    assert await verdict(engine, audit_id) == ("accepted", "The run is running.")
    assert await accused(engine) == {}


async def test_a_request_of_a_person_is_worth_two_workers_and_no_more(engine):
    run_id, audit_id = str(uuid7()), str(uuid7())
    await accuse(engine, run_id, "send", "send", times=2)
    async with engine.database.transaction() as tx:
        await audit.record(tx, [OperatorAction(audit_id, "ada", "retry", "deployed", run_id)])
        retry = {"resolution": "retry"}
        await pending_requests.record(tx, [NewRequest("resolve", run_id, retry, audit_id=audit_id)])
    times = []
    for _ in range(3):
        async with engine.database.transaction() as tx:
            await crash_suspects.allow_retry(tx, run_id)
        times.append((await accused(engine))[run_id].crash_count)
        await accuse(engine, run_id, "send", "send", times=1)
    assert times == [0, 1, 2]


async def test_a_timer_whose_call_ended_two_workers_opens_an_incident(engine):
    saga = boxes(SOON)
    participant = await engine.start_participant(COMMANDS)
    participant.reply_makers["box.pack"] = no_reply
    run_id = str(uuid7())
    await accuse(engine, run_id, "pack", "unpack", direction="compensation", times=2)
    worker, client = await engine.start_worker(saga, **QUICKLY), await engine.connect_client()
    await client.start("box", run_id=run_id)
    await participant.wait_for_commands("box.pack")
    incident = await worker.events.wait_for_incident(run_id)
    assert (incident.step, incident.direction) == ("pack", "compensation")
    assert (incident.cause, saga.calls) == ("mapping_failed", ["pack"])


async def recorded_start(engine, tx):
    """Record a start of the box that a worker had, which is gone; its run id."""
    await (await engine.start_worker(boxes())).stop()
    return str((await start_in_transaction(tx.connection, "box", {})).run_id)


async def test_a_call_that_ended_one_worker_is_made_once_more_and_forgotten_when_it_returns(engine):
    await engine.start_participant(COMMANDS)
    async with engine.database.transaction() as tx:
        run_id = await recorded_start(engine, tx)
        await crash_suspects.record_crash(tx, CrashSuspect(run_id, "pack", "action", "pack"))
    worker = await engine.start_worker(boxes(), **QUICKLY)
    assert await worker.events.wait_for_end(run_id) is Status.COMPLETED
    assert await accused(engine) == {}


async def test_a_start_whose_validator_ended_two_workers_is_refused(engine):
    run_id = str(uuid7())
    await engine.start_participant(COMMANDS)
    await accuse(engine, run_id, "", "dict", direction="", times=2)
    worker, client = await engine.start_worker(boxes(), **QUICKLY), await engine.connect_client()
    answer = await client.call("start", run_id=run_id, saga="box", input={})
    assert answer.outcome == "invalid"
    assert "ended 2 worker processes" in answer.error.message
    await worker.events.wait_for_dead_letter("code_killed_worker", run_id=run_id)
    assert worker.events.matching(MessageDeadLettered, reason="invalid_input") == []


async def test_what_is_suspect_has_a_batch_of_its_own(engine):
    await engine.start_participant(COMMANDS)
    run_ids = [str(uuid7()) for _ in range(10)]
    await accuse(engine, run_ids[4], "pack", "pack", times=1)
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


async def test_suspects_of_runs_that_are_finished_or_never_began_are_forgotten_after_a_day(engine):
    await engine.start_participant(COMMANDS)
    worker, client = await engine.start_worker(boxes()), await engine.connect_client()
    done = await client.start("box")
    await worker.events.wait_for_end(done)
    never, fresh = str(uuid7()), str(uuid7())
    for each in (done, never, fresh):
        await accuse(engine, each, "send", "send", times=1)
    async with engine.database.transaction() as tx:
        old = (
            "UPDATE saga_engine.crash_suspect SET last_crash_at = last_crash_at - interval '2 days'"
            " WHERE run_id <> :fresh"
        )
        await tx.execute(text(old), {"fresh": fresh})
        await crash_suspects.delete_expired(tx)
    assert list(await accused(engine)) == [fresh]


async def test_what_is_held_behind_the_start_of_a_suspect_is_taken_after_it(engine):
    await engine.start_participant(COMMANDS)
    async with engine.database.transaction() as tx:
        run_id = await recorded_start(engine, tx)
        await crash_suspects.record_crash(tx, CrashSuspect(run_id, "pack", "action", "pack"))
        cancel = {"operator": "ada", "reason": "too late"}
        await pending_requests.record(tx, [NewRequest("cancel", run_id, cancel, awaits_start=True)])
    worker = await engine.start_worker(boxes(), **QUICKLY)
    assert (await worker.events.wait_for_end(run_id)).finished
    async with asyncio.timeout(60):
        while await recorded(engine):
            pass


async def recorded(engine):
    async with engine.database.transaction() as tx:
        return (
            await tx.execute(text("SELECT count(*) FROM saga_engine.pending_request"))
        ).scalar_one()


async def test_a_suspect_is_left_to_a_worker_with_the_definition_it_is_pinned_to(engine):
    await engine.start_participant(COMMANDS)
    async with engine.database.transaction() as tx:
        run_id = await recorded_start(engine, tx)
        pinned = "UPDATE saga_engine.pending_request SET fingerprint = 'another'"
        await tx.execute(text(pinned))
        mine = text("SELECT id FROM saga_engine.definition")
        ids = list((await tx.execute(mine)).scalars())
        assert await crash_suspects.take_oldest_request(tx, run_id, ids, ReadLimits()) == []


async def test_suspects_without_work_are_left_alone(engine):
    await engine.start_participant(COMMANDS)
    worker, client = await engine.start_worker(boxes()), await engine.connect_client()
    done = await client.start("box")
    await worker.events.wait_for_end(done)
    await accuse(engine, done, "send", "send", times=2)
    await worker.stop()
    async with engine.database.transaction() as tx:
        waits = str((await start_in_transaction(tx.connection, "box", {})).run_id)
        await crash_suspects.record_crash(tx, CrashSuspect(waits, "pack", "action", "pack"))
        assert list(await crash_suspects.read_with_work(tx)) == [waits]


async def test_due_runs_of_suspects_hold_up_no_others(engine):
    worker, client = await engine.start_worker(boxes(SOON)), await engine.connect_client()
    participant = await engine.start_participant(COMMANDS)
    participant.reply_makers["box.pack"] = no_reply
    held, other = await client.start("box"), await client.start("box")
    await participant.wait_for_commands("box.pack", 2)
    await worker.stop()
    async with engine.database.transaction() as tx:
        past = "UPDATE saga_engine.run SET wake_at = clock_timestamp() - interval '1 hour'"
        await tx.execute(text(past))
        ids = list((await tx.execute(text("SELECT id FROM saga_engine.definition"))).scalars())
        found = await runs.lock_due(tx, ids, 1, excluding={held})
        assert list(found) == [other]
