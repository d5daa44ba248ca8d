"""Recovery resends commands in flight: the same attempt, with its whole timeout."""

from dataclasses import replace
from datetime import timedelta

from saga_engine.protocol.topology import COMMANDS, participant_queue
from saga_engine.store import outbox, recovery
from saga_engine.telemetry.events import AttemptSent, MessagesPublished
from saga_engine.vocabulary import Status
from tests.kit.connections import raw_channel
from tests.kit.engine import no_reply, reject, succeed
from tests.kit.parcels import parcels
from tests.kit.programs import sleep
from tests.kit.promises import check_promises

EAGER = {"outbox_resend_after": 0.4, "broker_confirm_timeout": 0.3}


def same(again, first):
    """Whether both are the same attempt; the deadline differs."""
    assert again.command.deadline > first.command.deadline
    sent = replace(first.command, deadline=again.command.deadline)
    return (again.command, again.correlation_id) == (sent, first.correlation_id)


async def test_a_command_in_flight_is_resent_as_the_same_attempt(engine_on_any_broker):
    worker, participant = (
        await engine_on_any_broker.start_worker(**EAGER),
        await engine_on_any_broker.start_participant(),
    )
    client = await engine_on_any_broker.connect_client()
    participant.reply_makers["parcel.pack"] = no_reply
    run_id = await client.start()
    [first] = await participant.wait_for_commands("parcel.pack")
    done = await recovery.resend_in_flight(engine_on_any_broker.database)
    assert (done.runs, done.commands) == (1, 1)
    _, again = await participant.wait_for_commands("parcel.pack", 2)
    assert same(again, first)
    await participant.publish(*succeed(first), *succeed(again))
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    assert len(worker.events.matching(AttemptSent, step="pack")) == 1


async def test_an_overdue_attempt_gets_its_whole_timeout_again(engine):
    saga = parcels(timeout=timedelta(seconds=2))
    worker, participant, client = (
        await engine.start_worker(saga),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    participant.reply_makers["parcel.pack"] = no_reply
    run_id = await client.start()
    await participant.wait_for_commands("parcel.pack")
    await worker.crash()
    await sleep(2.1)
    await recovery.resend_in_flight(engine.database)
    participant.reply_makers.clear()
    worker = await engine.start_worker(saga, **EAGER)
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    assert not worker.events.matching(AttemptSent, step="pack"), "it cost an attempt"
    await check_promises(engine.database)


async def test_a_compensation_in_flight_is_resent(engine):
    worker, participant, client = (
        await engine.start_worker(**EAGER),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    participant.reply_makers["parcel.send"] = reject
    participant.reply_makers["parcel.unpack"] = no_reply
    run_id = await client.start()
    [first] = await participant.wait_for_commands("parcel.unpack")
    participant.reply_makers.clear()
    assert (await recovery.resend_in_flight(engine.database)).commands == 1
    _, again = await participant.wait_for_commands("parcel.unpack", 2)
    assert same(again, first)
    assert await worker.events.wait_for_end(run_id) == Status.COMPENSATED


async def test_a_resent_command_that_is_unroutable_may_have_taken_effect(
    engine_on_any_broker,
):
    worker, participant = (
        await engine_on_any_broker.start_worker(**EAGER),
        await engine_on_any_broker.start_participant(),
    )
    client = await engine_on_any_broker.connect_client()
    participant.reply_makers["parcel.pack"] = no_reply  # it takes effect, and its reply is lost
    run_id = await client.start()
    await participant.wait_for_commands("parcel.pack")
    async with raw_channel(engine_on_any_broker.broker_url) as channel:
        way = {"queue": participant_queue("shop"), "exchange": COMMANDS}
        await channel.queue_unbind(**way, routing_key="parcel.pack")
        await recovery.resend_in_flight(engine_on_any_broker.database)
        await worker.events.wait_for(MessagesPublished, outcome="unroutable")
        await client.call("cancel", run_id=run_id, operator="ada", reason="it takes too long")
    assert await worker.events.wait_for_end(run_id) == Status.COMPENSATED
    assert "parcel.unpack" in participant.command_names


async def test_a_second_recovery_sends_nothing_that_is_answered(engine):
    worker, participant, client = (
        await engine.start_worker(),
        await engine.start_participant(),
        await engine.connect_client(),
    )
    participant.reply_makers["parcel.notify"] = no_reply
    run_id = await client.start()
    [command] = await participant.wait_for_commands("parcel.notify")
    for _ in range(3):
        assert (await recovery.resend_in_flight(engine.database)).commands == 1
    async with engine.database.transaction() as tx:
        assert (await outbox.backlog(tx)).pending == 1
    await participant.publish(*succeed(command))
    assert await worker.events.wait_for_end(run_id) == Status.COMPLETED
    assert (await recovery.resend_in_flight(engine.database)).runs == 0
