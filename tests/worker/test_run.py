"""What becomes of a run: it completes, is compensated, or waits for a person."""

from datetime import timedelta

from saga_engine.telemetry.events import AttemptFinished, MessageIgnored
from saga_engine.vocabulary import Status
from tests.kit.engine import fail, no_reply, reject, reply_twice, succeed
from tests.kit.parcels import parcels
from tests.kit.promises import check_promises

BLINK = timedelta(milliseconds=200)


async def test_a_run_completes_with_the_replies_of_its_steps(engine_on_any_broker):
    worker, participant, client = (
        await engine_on_any_broker.start_worker(),
        await engine_on_any_broker.start_participant(),
        await engine_on_any_broker.connect_client(),
    )
    run_id = await client.start(input={"to": "Ada"})
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    assert participant.command_names == ["parcel.pack", "parcel.send", "parcel.tell"]
    assert participant.received[0].command.payload == {"to": "Ada"}
    answer = await client.call("status", run_id=run_id)
    assert (answer.outcome, answer.status) == ("existing", "completed")
    assert answer.result["send"] == {"did": "parcel.send"}
    await check_promises(engine_on_any_broker.database)


async def test_a_rejection_compensates_what_was_done_in_reverse(engine_on_any_broker):
    worker, participant, client = (
        await engine_on_any_broker.start_worker(),
        await engine_on_any_broker.start_participant(),
        await engine_on_any_broker.connect_client(),
    )
    participant.reply_makers["parcel.tell"] = reject
    run_id = await client.start()
    assert await worker.events.wait_for_end(run_id) == Status.COMPENSATED
    assert participant.command_names[3:] == ["parcel.recall", "parcel.unpack"]
    answer = await client.call("status", run_id=run_id)
    assert (answer.status, answer.error.code) == ("compensated", "no")
    await check_promises(engine_on_any_broker.database)


async def test_a_silent_participant_is_asked_again_with_the_same_key_and_then_undone(engine):
    worker = await engine.start_worker(parcels(timeout=BLINK))
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.send"] = no_reply
    run_id = await client.start()
    assert await worker.events.wait_for_end(run_id) == Status.COMPENSATED
    first, second = await participant.wait_for_commands("parcel.send", 2)
    assert first.command.idempotency_key == second.command.idempotency_key
    assert (first.command.attempt, second.command.attempt) == (1, 2)
    assert first.message_id != second.message_id
    assert participant.command_names[-2:] == ["parcel.recall", "parcel.unpack"]
    outcomes = [fact.outcome for fact in worker.events.matching(AttemptFinished, step="send")]
    assert outcomes[:2] == ["unknown", "unknown"]
    await check_promises(engine.database)


async def test_trouble_is_tried_again_until_it_works(engine):
    worker, participant, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    participant.reply_makers["parcel.send"] = fail_at_first
    run_id = await client.start()
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    await check_promises(engine.database)


async def test_replies_that_come_twice_change_nothing(engine_on_any_broker):
    worker, participant, client = (
        await engine_on_any_broker.start_worker(),
        await engine_on_any_broker.start_participant(),
        await engine_on_any_broker.connect_client(),
    )
    for command in ("parcel.pack", "parcel.send", "parcel.tell"):
        participant.reply_makers[command] = reply_twice
    run_id = await client.start()
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    await worker.events.wait_for(MessageIgnored, 3, run_id=run_id, reason="duplicate")
    assert participant.command_names == ["parcel.pack", "parcel.send", "parcel.tell"]
    await check_promises(engine_on_any_broker.database)


async def test_a_success_that_comes_too_late_is_undone_and_not_believed(engine):
    worker = await engine.start_worker(parcels(timeout=BLINK))
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.send"] = no_reply
    run_id = await client.start()
    assert await worker.events.wait_for_end(run_id) == Status.COMPENSATED
    [command] = await participant.wait_for_commands("parcel.send")
    await participant.publish(*succeed(command))
    await worker.events.wait_for_ignored("late", run_id=run_id)
    await check_promises(engine.database)


async def test_a_compensation_that_runs_out_of_attempts_needs_a_person(engine):
    worker, participant, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    participant.reply_makers["parcel.tell"], participant.reply_makers["parcel.recall"] = (
        reject,
        fail,
    )
    run_id = await client.start()
    incident = await worker.events.wait_for_incident(run_id)
    assert (incident.step, incident.cause) == ("send", "compensation_failed")
    await check_promises(engine.database)


async def test_a_deadline_turns_the_run_back(engine):
    worker = await engine.start_worker(parcels(deadline=timedelta(seconds=0.3), timeout=BLINK * 2))
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.send"] = no_reply
    run_id = await client.start()
    assert await worker.events.wait_for_end(run_id) == Status.COMPENSATED
    answer = await client.call("status", run_id=run_id)
    assert answer.error.code == "deadline"
    await check_promises(engine.database)


def fail_at_first(command):
    return (fail if command.command.attempt == 1 else succeed)(command)
