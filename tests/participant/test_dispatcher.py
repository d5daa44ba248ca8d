"""The slots, the order and the end of the commands of one process."""

import asyncio

import pytest

from saga_engine.amqp.consumer import Consumer
from saga_engine.errors import HandlersStuck
from saga_engine.protocol.topology import DEAD_LETTERS, ENGINE_TOPOLOGY
from saga_engine.telemetry.events import (
    HandlerFinished,
    MessageDeadLettered,
    ProcessStopped,
    ProcessStopping,
)
from saga_engine.vocabulary import (
    Outcome,
    Program,
)
from tests.kit.connections import open_connection, raw_channel
from tests.kit.misbehaving_participant import (
    HOLD,
    SHORT,
    UncancellableParticipant,
)
from tests.kit.participant_service import engine_stub, running_service
from tests.kit.payments_participant import (
    PaymentsParticipant,
    booking_rows,
    make_command,
)


async def test_a_participant_whose_handlers_are_all_stuck_ends_itself(broker_url):
    payments = UncancellableParticipant()

    async def be_stuck():
        async with (
            engine_stub(broker_url) as engine,
            running_service(broker_url, payments, participant_concurrency=1, **SHORT) as running,
        ):
            await engine.send(make_command(payload=HOLD))
            assert (await engine.take_reply()).failure.code == "timeout"
            async with asyncio.timeout(30):
                await running.task

    with pytest.raises(BaseExceptionGroup) as found:
        await be_stuck()
    payments.may_finish.set()
    stuck = found.value.subgroup(HandlersStuck)
    assert stuck is not None
    assert "participant_concurrency" in str(stuck.exceptions[0])


HOSTILE = {
    "malformed_json": b"{",
    "too_deep": b"[" * 500 + b"]" * 500,
    "too_large": b'"' + b"x" * 300_000 + b'"',
    "not_storable": b'"\\u0000"',
    "bad_command": b"{}",
}


@pytest.mark.parametrize("reason", HOSTILE)
async def test_a_message_that_is_not_a_command_is_rejected_and_the_next_one_handled(
    broker_url, reason
):
    async with engine_stub(broker_url) as engine, raw_channel(broker_url) as channel:
        async with running_service(broker_url, PaymentsParticipant()) as running:
            await channel.basic_publish(
                HOSTILE[reason], exchange="saga.commands", routing_key="payment.charge"
            )
            aside = await running.events.wait_until(
                lambda event: isinstance(event, MessageDeadLettered)
            )
            assert (aside.reason, aside.queue) == (reason, "saga.participant.payments")
            await engine.send(make_command())
            assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED
            await running.shut_down()
        async with running_service(broker_url, PaymentsParticipant()) as other:
            await engine.send(make_command())
            assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED
            assert other.events.matching(MessageDeadLettered) == []


async def test_unreadable_messages_reach_the_dead_letters_with_a_policy(rabbitmq, rabbitmq_url):
    host = rabbitmq_url.rpartition("/")[2]
    definition = '{"dead-letter-exchange": "saga.dead-letters"}'
    await rabbitmq.rabbitmqctl(
        "set_policy", "-p", host, "--apply-to", "queues", "aside", "^saga.participant", definition
    )
    async with (
        engine_stub(rabbitmq_url),
        raw_channel(rabbitmq_url) as channel,
        open_connection(rabbitmq_url, topology=ENGINE_TOPOLOGY) as link,
        Consumer(link, [DEAD_LETTERS]) as dead_letters,
        running_service(rabbitmq_url, PaymentsParticipant()),
    ):
        await channel.basic_publish(b"{", exchange="saga.commands", routing_key="payment.charge")
        async with asyncio.timeout(30):
            (letter,) = await dead_letters.take(1)
        assert letter.body == b"{"


async def test_a_hanging_handler_fails_and_the_others_continue(broker_url):
    payments = PaymentsParticipant()
    async with (
        engine_stub(broker_url) as engine,
        running_service(broker_url, payments, participant_handler_timeout=0.5) as running,
    ):
        await engine.send(make_command(payload={"order_id": "o-1", "card": "slow"}))
        await payments.entered.wait()
        await engine.send(make_command())
        assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED
        assert (await engine.take_reply()).failure.code == "timeout"
        assert len(running.events.matching(HandlerFinished)) == 2


async def test_no_more_handlers_run_at_once_than_allowed(broker_url):
    payments = PaymentsParticipant()
    slow = {"order_id": "o-1", "card": "slow"}
    async with (
        engine_stub(broker_url) as engine,
        running_service(broker_url, payments, participant_concurrency=2, participant_prefetch=10),
    ):
        for _ in range(5):
            await engine.send(make_command(payload=slow))
        await payments.entered.wait()
        await engine.send(make_command())  # through the broker and back: the five have arrived
        assert len(payments.calls) <= 2
        payments.may_finish.set()
        await engine.take_replies(6)
        assert len(payments.calls) == 6


async def test_a_shutdown_finishes_commands_in_progress_and_starts_no_new_ones(
    broker_url, user_engine
):
    payments = PaymentsParticipant(user_engine)
    slow, late = make_command(payload={"order_id": "o-1", "card": "slow"}), make_command()
    async with engine_stub(broker_url) as engine:
        async with running_service(broker_url, payments, participant_concurrency=1) as running:
            await engine.send(slow)
            await payments.entered.wait()
            await engine.send(late)
            running.stop.set()
            await running.events.wait_until(lambda event: isinstance(event, ProcessStopping))
            assert (await running.service.readiness())["shutting_down"]
            payments.may_finish.set()
            await running.shut_down()
            assert (await engine.take_reply()).command_ref.run_id == slow.run_id
            assert running.events.matching(ProcessStopped) == [
                ProcessStopped(program=Program.PARTICIPANT, clean=True)
            ]
        assert await booking_rows(user_engine) == [("o-1", 1)]
        async with running_service(broker_url, payments):
            assert (await engine.take_reply()).command_ref.run_id == late.run_id
