"""A run completes, compensates, or has an incident."""

from datetime import timedelta

from saga_engine.telemetry.events import AttemptFinished, MessageIgnored
from saga_engine.vocabulary import Status
from tests.kit.broker_faults import lose_after_confirm
from tests.kit.engine import fail, no_reply, reject, reply_twice, succeed
from tests.kit.parcels import failing_parcels, parcels
from tests.kit.promises import check_promises
from tests.worker.steps import SHORT_TIMEOUT

FAST_TIMEOUT = timedelta(milliseconds=200)


async def test_a_cancelled_run_awaits_its_step_in_flight_and_compensates(engine):
    worker, participant, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    participant.reply_makers["parcel.send"] = no_reply
    run_id = await client.start()
    [command] = await participant.wait_for_commands("parcel.send")
    answer = await client.call("cancel", run_id=run_id, operator="ada", reason="changed my mind")
    assert answer.outcome == "accepted"
    await participant.publish(*succeed(command))
    assert await worker.events.wait_for_end(run_id) == Status.COMPENSATED
    assert participant.command_names == [
        "parcel.pack",
        "parcel.send",
        "parcel.recall",
        "parcel.unpack",
    ]
    await check_promises(engine.database)


async def test_a_command_lost_after_its_confirm_costs_one_attempt(engine, development_broker):
    worker = await engine.start_worker(parcels(timeout=SHORT_TIMEOUT))
    participant, client = await engine.start_participant(), await engine.connect_client()
    development_broker.faults.on_publish(
        lambda message: message.routing_key == "parcel.send", lose_after_confirm, max_count=1
    )
    run_id = await client.start()
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    [command] = await participant.wait_for_commands("parcel.send")
    assert command.command.attempt == 2
    await check_promises(engine.database)


async def test_a_mapping_that_raises_opens_an_incident_and_stops_no_other_run(engine):
    def explode(parcel):
        raise RecursionError(parcel)

    worker = await engine.start_worker(failing_parcels(explode), parcels())
    _, client = await engine.start_participant(), await engine.connect_client()
    broken = await client.start("fragile")
    assert (await worker.events.wait_for_incident(broken)).cause == "mapping_failed"
    assert await worker.events.wait_for_end(await client.start()) == Status.COMPLETED
    await check_promises(engine.database)


async def test_a_run_completes_with_the_replies_of_its_steps(engine_on_any_broker):
    worker, participant, client = (
        await engine_on_any_broker.start_worker(),
        await engine_on_any_broker.start_participant(),
        await engine_on_any_broker.connect_client(),
    )
    run_id = await client.start(input={"to": "Ada"})
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    assert participant.command_names == ["parcel.pack", "parcel.send", "parcel.notify"]
    assert participant.received[0].command.payload == {"to": "Ada"}
    answer = await client.call("status", run_id=run_id)
    assert (answer.outcome, answer.run.status) == ("existing", "completed")
    assert answer.run.result["send"] == {"did": "parcel.send"}
    await check_promises(engine_on_any_broker.database)


async def test_a_rejection_compensates_in_reverse_order(engine_on_any_broker):
    worker, participant, client = (
        await engine_on_any_broker.start_worker(),
        await engine_on_any_broker.start_participant(),
        await engine_on_any_broker.connect_client(),
    )
    participant.reply_makers["parcel.notify"] = reject
    run_id = await client.start()
    assert await worker.events.wait_for_end(run_id) == Status.COMPENSATED
    assert participant.command_names[3:] == ["parcel.recall", "parcel.unpack"]
    answer = await client.call("status", run_id=run_id)
    assert (answer.run.status, answer.run.error.code) == ("compensated", "no")
    await check_promises(engine_on_any_broker.database)


async def test_an_attempt_without_a_reply_is_retried_with_the_same_key_then_compensated(engine):
    worker = await engine.start_worker(parcels(timeout=FAST_TIMEOUT))
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.send"] = no_reply
    run_id = await client.start()
    assert await worker.events.wait_for_end(run_id) == Status.COMPENSATED
    first, second = await participant.wait_for_commands("parcel.send", 2)
    assert first.command.idempotency_key == second.command.idempotency_key
    assert (first.command.attempt, second.command.attempt) == (1, 2)
    assert first.message_id != second.message_id
    assert participant.command_names[-2:] == ["parcel.recall", "parcel.unpack"]
    outcomes = [event.outcome for event in worker.events.matching(AttemptFinished, step="send")]
    assert outcomes[:2] == ["unknown", "unknown"]
    await check_promises(engine.database)


async def test_a_failed_step_is_retried_until_it_succeeds(engine):
    worker, participant, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    participant.reply_makers["parcel.send"] = fail_at_first
    run_id = await client.start()
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    await check_promises(engine.database)


async def test_duplicate_replies_change_nothing(engine_on_any_broker):
    worker, participant, client = (
        await engine_on_any_broker.start_worker(),
        await engine_on_any_broker.start_participant(),
        await engine_on_any_broker.connect_client(),
    )
    for command in ("parcel.pack", "parcel.send", "parcel.notify"):
        participant.reply_makers[command] = reply_twice
    run_id = await client.start()
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    await worker.events.wait_for(MessageIgnored, 3, run_id=run_id, reason="duplicate")
    assert participant.command_names == ["parcel.pack", "parcel.send", "parcel.notify"]
    await check_promises(engine_on_any_broker.database)


async def test_a_late_success_is_compensated(engine):
    worker = await engine.start_worker(parcels(timeout=FAST_TIMEOUT))
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.send"] = no_reply
    run_id = await client.start()
    assert await worker.events.wait_for_end(run_id) == Status.COMPENSATED
    [command] = await participant.wait_for_commands("parcel.send")
    await participant.publish(*succeed(command))
    await worker.events.wait_for_ignored("late", run_id=run_id)
    await check_promises(engine.database)


async def test_a_compensation_out_of_attempts_opens_an_incident(engine):
    worker, participant, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    participant.reply_makers["parcel.notify"], participant.reply_makers["parcel.recall"] = (
        reject,
        fail,
    )
    run_id = await client.start()
    incident = await worker.events.wait_for_incident(run_id)
    assert (incident.step, incident.cause) == ("send", "compensation_failed")
    await check_promises(engine.database)


async def test_a_deadline_compensates_the_run(engine):
    worker = await engine.start_worker(
        parcels(deadline=timedelta(seconds=0.3), timeout=FAST_TIMEOUT * 2)
    )
    participant, client = await engine.start_participant(), await engine.connect_client()
    participant.reply_makers["parcel.send"] = no_reply
    run_id = await client.start()
    assert await worker.events.wait_for_end(run_id) == Status.COMPENSATED
    answer = await client.call("status", run_id=run_id)
    assert answer.run.error.code == "deadline"
    await check_promises(engine.database)


def fail_at_first(command):
    return (fail if command.command.attempt == 1 else succeed)(command)
