"""Admission control: starts beyond the slots are accepted and queued."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from saga_engine.client import Client
from saga_engine.identifiers import uuid7
from saga_engine.settings import Settings
from saga_engine.telemetry.events import (
    AttemptFinished,
    BacklogCounted,
    DatabaseUnavailable,
    IncidentOpened,
    RunFinished,
    RunStarted,
)
from saga_engine.vocabulary import Outcome, Status
from saga_engine.worker.admission import RATE_WINDOW
from tests.kit.connections import wait_until
from tests.kit.engine import no_reply, reject, succeed
from tests.kit.parcels import failing_parcels, parcels
from tests.kit.programs import sleep
from tests.kit.promises import check_promises


def start(**more):
    return ("start", {"run_id": str(uuid7()), "saga": "parcel", "input": {}, **more})


async def release(participant, commands):
    """Publish the replies that were held back, and reply immediately from now on."""
    participant.reply_makers.clear()
    for command in commands:
        await participant.publish(*succeed(command))


async def test_starts_beyond_the_slots_are_accepted_and_run_when_slots_are_freed(
    engine_on_any_broker,
):
    worker = await engine_on_any_broker.start_worker(max_concurrent_runs=2)
    participant, client = (
        await engine_on_any_broker.start_participant(),
        await engine_on_any_broker.connect_client(),
    )
    participant.reply_makers["parcel.pack"] = no_reply
    # One by one: of starts that arrive together, one batch may overtake another.
    answers = [(await client.call_all(start(input={"n": n})))[0] for n in range(9)]
    assert {(each.outcome, each.run.status, each.run.version) for each in answers} == {
        ("accepted", "running", 1)
    }
    started = await participant.wait_for_commands("parcel.pack", 2)
    assert len(worker.events.matching(RunStarted)) == 2
    await release(participant, started)
    await worker.events.wait_for(RunFinished, 9, status=Status.COMPLETED)
    packed = [
        each.command.payload["n"] for each in await participant.wait_for_commands("parcel.pack", 9)
    ]
    assert sorted(packed) == list(range(9))
    assert packed[2:] == sorted(packed[2:]), "in the order of their starts"
    await check_promises(engine_on_any_broker.database)


async def test_no_more_runs_are_in_flight_than_there_are_slots(engine):
    worker = await engine.start_worker(max_concurrent_runs=5)
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.pack"] = no_reply
    await client.call_all(*(start() for _ in range(40)))
    answered = 0
    while answered < 40:
        waiting = (await participant.wait_for_commands("parcel.pack", answered + 1))[answered:]
        started = len(worker.events.matching(RunStarted)) - len(worker.events.matching(RunFinished))
        assert started <= 5
        answered += len(waiting)
        for command in waiting:
            await participant.publish(*succeed(command))
        await worker.events.wait_for(RunFinished, answered)


async def test_the_queue_of_one_saga_does_not_block_another_saga(engine):
    worker = await engine.start_worker(
        parcels(), failing_parcels(lambda _: None), max_concurrent_runs=1
    )
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.pack"] = no_reply
    await client.call_all(start(), start())
    other = await client.start("fragile")
    await participant.wait_for_commands("parcel.pack", 2)
    assert {event.run_id for event in worker.events.matching(RunStarted, saga="fragile")} == {other}
    assert len(worker.events.matching(RunStarted, saga="parcel")) == 1


async def test_a_client_sees_a_queued_run_as_running(engine):
    worker = await engine.start_worker(max_concurrent_runs=1)
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.pack"] = no_reply
    await client.start()
    async with Client(settings=Settings(broker_url=engine.broker_url)) as client:
        handle = await client.start("parcel", {}, key="p-1")
        assert (handle.status, handle.version, handle.existing) == (Status.RUNNING, 1, False)
        status = await client.status(handle.run_id)
        assert (status.status, status.saga, status.key) == (
            Status.RUNNING,
            "parcel",
            "p-1",
        )
        again = await client.start("parcel", {}, key="p-1")
        assert (again.run_id, again.existing) == (handle.run_id, True)
        await release(participant, await participant.wait_for_commands("parcel.pack"))
        ended = await client.result(handle.run_id, timeout=20)
        assert ended.status is Status.COMPLETED
    assert len(worker.events.matching(RunStarted)) == 2


async def test_a_queued_run_can_be_cancelled_and_compensates_when_admitted(engine):
    worker = await engine.start_worker(max_concurrent_runs=1)
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.pack"] = no_reply
    await client.start()
    [command] = await participant.wait_for_commands("parcel.pack")
    late = await client.start()
    cancel = {"run_id": late, "operator": "Ada", "reason": "too late"}
    [asked] = await client.send(("cancel", cancel))
    await client.call("status", run_id=late)  # the cancel was processed before this answer
    await release(participant, [command])
    assert (await client.wait_for_answer(asked)).outcome == "accepted"
    assert await worker.events.wait_for_end(late) == Status.COMPENSATED
    await check_promises(engine.database)


async def test_a_run_with_an_incident_frees_its_slot_after_its_last_timer(engine):
    worker = await engine.start_worker(parcels(timeout=timedelta(seconds=3)), max_concurrent_runs=1)
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.send"] = participant.reply_makers["parcel.unpack"] = reject
    stuck = await client.start()
    await worker.events.wait_for_incident(stuck)
    participant.reply_makers.clear()
    assert await worker.events.wait_for_end(await client.start()) == Status.COMPLETED


async def test_a_run_that_is_due_far_beyond_the_horizon_uses_no_slot(engine):
    slow = parcels(timeout=timedelta(hours=8))
    worker = await engine.start_worker(slow, max_concurrent_runs=1)
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.pack"] = no_reply
    await client.call_all(start(), start(), start())
    await participant.wait_for_commands("parcel.pack", 3)
    assert len(worker.events.matching(RunStarted)) == 3


async def test_a_run_with_a_timeout_longer_than_the_horizon_keeps_its_slot(engine):
    worker = await engine.start_worker(
        parcels(timeout=timedelta(minutes=30)), max_concurrent_runs=1
    )
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.pack"] = no_reply
    await client.call_all(start(), start(), start())
    started = await participant.wait_for_commands("parcel.pack")
    assert len(worker.events.matching(RunStarted)) == 1
    await release(participant, started)
    await worker.events.wait_for(RunFinished, 3, status=Status.COMPLETED)


async def test_queued_starts_survive_the_worker_and_are_counted_in_the_gauges(engine):
    worker = await engine.start_worker(max_concurrent_runs=1, maintenance_interval=0.1)
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.pack"] = no_reply
    await client.call_all(*(start() for _ in range(4)))
    await wait_until(
        lambda: any(
            event.starts_awaiting_admission == {"parcel": 3}
            for event in worker.events.matching(BacklogCounted)
        )
    )
    await worker.crash()
    async with engine.database.transaction() as tx:
        assert (
            await tx.execute(text("SELECT count(*) FROM saga_engine.pending_request"))
        ).scalar_one() == 3
    other = await engine.start_worker()
    await release(participant, await participant.wait_for_commands("parcel.pack"))
    await other.events.wait_for(RunFinished, 4, status=Status.COMPLETED)


LATE_S = 3.3  # More than half of their timeout.


async def runs_in_flight_of(engine, *, timeout_s=6.0, **settings):
    """A worker, thirty runs whose first command is not answered, and a function for the slots."""
    slow = parcels(timeout=timedelta(seconds=timeout_s))
    worker = await engine.start_worker(slow, max_concurrent_runs=200, **settings)
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.pack"] = no_reply
    await client.call_all(*(start() for _ in range(30)))
    started = await participant.wait_for_commands("parcel.pack", 30)
    admission = worker.worker._loops._transactions.admission
    return worker, participant, started, lambda: admission.slots("parcel")


async def test_late_replies_remove_slots_and_early_replies_add_some(engine):
    worker, participant, started, slots = await runs_in_flight_of(engine)
    before = slots()
    await sleep(LATE_S)
    await release(participant, started)
    await worker.events.wait_for(RunFinished, 30, status=Status.COMPLETED)
    after = slots()
    assert after < before - 3
    client = await engine.connect_client()
    for number in range(20):
        await client.start()
        await worker.events.wait_for(RunFinished, 31 + number, status=Status.COMPLETED)
    assert slots() > after + 5


async def test_there_are_as_many_slots_as_the_measured_throughput_fills(engine):
    """One early reply adds a fraction of a slot; a second of them fills all that there may be."""
    timeout = timedelta(days=30)  # so that a slow machine fills them, too
    worker = await engine.start_worker(parcels(timeout=timeout), max_concurrent_runs=500)
    await engine.start_participant()
    client = await engine.connect_client()
    await client.start()
    await worker.events.wait_for(RunFinished)
    admission = worker.worker._loops._transactions.admission
    assert admission.slots("parcel") < 110
    await sleep(RATE_WINDOW)
    await client.start()
    await worker.events.wait_for(RunFinished, 2)
    assert admission.slots("parcel") == 500


async def no_journal(engine, worker, seconds):
    """A database that accepts connections and blocks every write for a while."""
    async with engine.database.transaction() as tx:
        await tx.execute(text("ALTER TABLE saga_engine.journal RENAME TO other"))
    await worker.events.wait_for(DatabaseUnavailable)
    await sleep(seconds)
    async with engine.database.transaction() as tx:
        await tx.execute(text("ALTER TABLE saga_engine.other RENAME TO journal"))


@pytest.mark.long
async def test_replies_that_are_late_because_of_a_database_outage_remove_no_slots(engine):
    worker, participant, started, slots = await runs_in_flight_of(engine)
    before = slots()
    await release(participant, started)
    await no_journal(engine, worker, LATE_S)
    await worker.events.wait_for(RunFinished, 30, status=Status.COMPLETED)
    assert slots() >= before


@pytest.mark.long
async def test_a_failing_duty_does_not_hide_a_late_reply(engine):
    worker, participant, started, slots = await runs_in_flight_of(engine, maintenance_interval=0.1)
    before = slots()
    async with engine.database.transaction() as tx:
        await tx.execute(text("ALTER TABLE saga_engine.dead_letter RENAME TO other"))
    await worker.events.wait_for(DatabaseUnavailable, operation="maintenance")
    await sleep(LATE_S)
    await release(participant, started)
    await worker.events.wait_for(RunFinished, 30, status=Status.COMPLETED)
    assert slots() < before - 3
    async with engine.database.transaction() as tx:
        await tx.execute(text("ALTER TABLE saga_engine.other RENAME TO dead_letter"))


@pytest.mark.long
async def test_replies_to_attempts_that_timed_out_during_an_outage_remove_no_slots(engine):
    timeout_s = 4.0  # A busy machine may take 2 s to time all of them out afterwards.
    worker, participant, started, slots = await runs_in_flight_of(engine, timeout_s=timeout_s)
    before = slots()
    await no_journal(engine, worker, timeout_s)
    again = await participant.wait_for_commands("parcel.pack", 60)
    assert {each.command.attempt for each in again[30:]} == {2}
    await release(participant, started)
    await worker.events.wait_for(AttemptFinished, 30, attempt=1, outcome=Outcome.SUCCEEDED)
    assert slots() >= before


async def test_timeouts_do_not_remove_the_initial_slots(engine):
    worker, participant, _, slots = await runs_in_flight_of(engine, timeout_s=0.5)
    before = slots()
    participant.reply_makers["parcel.unpack"] = no_reply
    await worker.events.wait_for(IncidentOpened, 30)
    assert slots() == before
