import asyncio
from dataclasses import replace

import pytest

from saga_engine.amqp.consumer import Consumer
from saga_engine.embedded.postgres import PostgresServer
from saga_engine.errors import ConfigurationError, StoreUnavailable
from saga_engine.participant import Participant, barrier
from saga_engine.participant.service import ParticipantService
from saga_engine.protocol.topology import DEAD_LETTERS, ENGINE_TOPOLOGY, REPLIES
from saga_engine.settings import Settings
from saga_engine.telemetry.events import (
    BarrierHit,
    DatabaseRecovered,
    DatabaseUnavailable,
    HandlerFailed,
    HandlerFinished,
    InternalErrorCaught,
    MessageDeadLettered,
    MessagesConsumed,
    MessagesPublished,
    ProcessStopped,
    ProcessStopping,
)
from saga_engine.vocabulary import (
    Outcome,
    Program,
)
from tests.kit.broker_faults import nack
from tests.kit.connections import open_connection, raw_channel
from tests.kit.participant_service import command_sender, engine_stub, running_service
from tests.kit.payments_participant import (
    ChargeCard,
    EventList,
    PaymentsParticipant,
    booking_rows,
    bookings_engine,
    make_command,
    make_refund,
)
from tests.kit.programs import sleep
from tests.kit.proxy import running_proxy


@pytest.fixture
async def user_engine(database_url):
    async with bookings_engine(database_url) as engine:
        yield engine


async def test_a_command_is_performed_once_and_answered(broker_url, user_engine):
    async with (
        engine_stub(broker_url) as engine,
        running_service(broker_url, PaymentsParticipant(user_engine)),
    ):
        charge = make_command()
        for asked in (charge, charge, make_refund(charge)):
            await engine.send(asked)
            reply = await engine.take_reply()
            assert reply.outcome is Outcome.SUCCEEDED
            assert reply.command_ref.run_id == charge.run_id
        assert await booking_rows(user_engine) == [("o-1", -1), ("o-1", 1)]


async def test_a_rejection_and_a_failure_are_sent_with_their_texts(broker_url):
    async with (
        engine_stub(broker_url) as engine,
        running_service(broker_url, PaymentsParticipant()),
    ):
        await engine.send(make_command(payload={"order_id": "o-1", "card": "declined"}))
        reply = await engine.take_reply()
        assert reply.outcome is Outcome.REJECTED
        assert reply.failure.code == "declined"
        assert reply.failure.details == {"card": "visa"}
        await engine.send(make_command(payload={"order_id": "o-1", "card": "broken"}))
        assert (await engine.take_reply()).failure.code == "OSError"


async def test_many_commands_are_answered_each_with_its_own_reply(broker_url, user_engine):
    commands = [make_command(payload={"order_id": f"o-{number}"}) for number in range(150)]
    async with (
        engine_stub(broker_url) as engine,
        running_service(broker_url, PaymentsParticipant(user_engine)) as running,
    ):
        async with asyncio.TaskGroup() as group:
            for asked in commands:
                group.create_task(engine.send(asked))
        replies = await engine.take_replies(len(commands))
        charge_ids = {reply.command_ref.run_id: reply.body["charge_id"] for reply in replies}
        for asked in commands:
            assert charge_ids[asked.run_id].startswith(asked.payload["order_id"] + "-")
        assert len(await booking_rows(user_engine)) == len(commands)
        sent = running.events.of_type(MessagesPublished)
        assert sum(event.messages for event in sent) == len(commands)
        assert len(sent) < len(commands)


async def test_commands_in_progress_elsewhere_do_not_block_other_commands(broker_url, user_engine):
    held = [make_command() for _ in range(3)]
    async with (
        engine_stub(broker_url) as engine,
        running_service(
            broker_url, PaymentsParticipant(user_engine), participant_concurrency=1
        ) as running,
    ):
        async with user_engine.connect() as gone:
            for each in held:
                assert (
                    await barrier.claim_command(gone, each, compensates_local_action=False) is None
                )
                await engine.send(each)
            for _ in range(10):
                await engine.send(other := make_command())
                assert (await engine.take_reply()).command_ref.run_id == other.run_id
        answered = {each.command_ref.run_id for each in await engine.take_replies(3)}
        assert answered == {each.run_id for each in held}
        assert len(running.events.of_type(MessagesConsumed)) == 13
    assert len(await booking_rows(user_engine)) == 13


async def test_only_the_last_attempt_waits_for_an_earlier_one(broker_url, user_engine):
    first = make_command()
    async with (
        engine_stub(broker_url) as engine,
        running_service(broker_url, PaymentsParticipant(user_engine)) as running,
    ):
        async with user_engine.connect() as gone:
            assert await barrier.claim_command(gone, first, compensates_local_action=False) is None
            for attempt in (1, 2, 3):
                await engine.send(replace(first, attempt=attempt))
            given_up = await engine.take_replies(2)
            assert {each.command_ref.attempt for each in given_up} == {1, 2}
            assert {each.failure.code for each in given_up} == {"in_progress"}
        last = await engine.take_reply()
        assert (last.command_ref.attempt, last.outcome) == (3, Outcome.SUCCEEDED)
        assert [event.reason for event in running.events.of_type(BarrierHit)] == [
            "in_progress",
            "in_progress",
        ]


async def test_a_command_that_stays_in_progress_elsewhere_is_given_up(broker_url, user_engine):
    charge = make_command()
    async with (
        engine_stub(broker_url) as engine,
        running_service(
            broker_url, PaymentsParticipant(user_engine), participant_handler_timeout=0.2
        ),
        user_engine.connect() as gone,
    ):
        assert await barrier.claim_command(gone, charge, compensates_local_action=False) is None
        for asked in (charge, make_refund(charge)):
            await engine.send(asked)
            assert (await engine.take_reply()).failure.code == "in_progress"


async def test_a_lost_connection_leaves_a_waiting_command_to_its_next_delivery(
    broker_url, user_engine
):
    charge = make_command()
    async with engine_stub(broker_url) as engine, running_proxy(broker_url) as proxy:
        async with running_service(proxy.url, PaymentsParticipant(user_engine)) as running:
            async with user_engine.connect() as gone:
                assert (
                    await barrier.claim_command(gone, charge, compensates_local_action=False)
                    is None
                )
                await engine.send(charge)
                for times in (1, 2, 3):
                    await running.events.wait_for(lambda _, n=times: consumed(running) == n)
                    proxy.reset()
                await running.events.wait_for(lambda _: consumed(running) == 4)
            assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED
            await running.shut_down()
        assert len(running.events.of_type(HandlerFinished)) == 1


def consumed(running):
    """How many deliveries have had their turn."""
    return len(running.events.of_type(MessagesConsumed))


async def test_a_shutdown_leaves_commands_that_are_in_progress_elsewhere(broker_url, user_engine):
    charge = make_command()
    async with engine_stub(broker_url) as engine:
        async with (
            running_service(broker_url, PaymentsParticipant(user_engine)) as running,
            user_engine.connect() as gone,
        ):
            assert await barrier.claim_command(gone, charge, compensates_local_action=False) is None
            await engine.send(charge)
            await running.events.wait_for(lambda event: isinstance(event, MessagesConsumed))
            await running.shut_down()
        async with running_service(broker_url, PaymentsParticipant(user_engine)):
            assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED


def nothing(_):
    """A fault: the publish is swallowed, neither delivered nor confirmed."""


def is_reply(message):
    return message.exchange == REPLIES


async def test_a_participant_killed_between_effect_and_reply_repeats_its_reply(
    development_broker, user_engine
):
    url, payments = development_broker.url, PaymentsParticipant(user_engine)
    swallowed = development_broker.faults.on_publish(is_reply, nothing)
    async with engine_stub(url) as engine:
        async with running_service(url, payments):
            await engine.send(make_command())
            await swallowed.exhausted.wait()
            assert await booking_rows(user_engine) == [("o-1", 1)]
        async with running_service(url, payments) as second:
            assert (await engine.take_reply()).body == {"charge_id": "o-1-1"}
            assert second.events.of_type(BarrierHit)[0].reason == "repeated"
            assert second.events.of_type(MessagesConsumed)[0].redelivered == 1
    assert payments.calls == ["charge"]
    assert await booking_rows(user_engine) == [("o-1", 1)]


async def test_a_reply_that_the_broker_nacks_is_sent_again(development_broker):
    ids = set()

    def noted(message):
        if is_reply(message):
            ids.add(message.properties.message_id)
        return is_reply(message)

    refused = development_broker.faults.on_publish(noted, nack, max_count=3)
    url = development_broker.url
    async with engine_stub(url) as engine, running_service(url, PaymentsParticipant()) as running:
        await engine.send(make_command())
        assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED
        assert refused.fired_count == len(ids) == 3
        await running.events.wait_for(lambda event: getattr(event, "outcome", "") == "confirmed")
        outcomes = [event.outcome for event in running.events.of_type(MessagesPublished)]
        assert outcomes == ["nacked", "nacked", "nacked", "confirmed"]


async def test_a_participant_replies_after_it_has_reconnected(development_broker, user_engine):
    url, payments = development_broker.url, PaymentsParticipant(user_engine)
    async with engine_stub(url) as engine, running_service(url, payments):
        await engine.send(make_command(payload={"order_id": "o-1", "card": "slow"}))
        await payments.entered.wait()
        development_broker.faults.abort_connections()
        payments.may_finish.set()
        assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED
    assert await booking_rows(user_engine) == [("o-1", 1)]


def returned(event):
    return isinstance(event, MessagesPublished) and event.outcome == "unroutable"


async def test_an_unroutable_reply_is_kept_until_an_engine_starts(broker_url):
    async with (
        command_sender(broker_url) as sender,
        running_service(broker_url, PaymentsParticipant()) as running,
    ):
        await sender.send(make_command())
        await running.events.wait_for(returned)
        async with engine_stub(broker_url) as engine:
            assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED


async def test_a_reply_without_a_queue_is_given_up_and_delays_no_other(broker_url):
    changes = {"participant_reply_retry_timeout": 0.2, "participant_prefetch": 2}
    async with (
        engine_stub(broker_url) as engine,
        running_service(broker_url, PaymentsParticipant(), **changes) as running,
    ):
        await engine.send(make_command(), reply_to="saga.replies.nowhere")
        await running.events.wait_for(returned)
        await engine.send(make_command())
        assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED
        given_up = await running.events.wait_for(
            lambda event: isinstance(event, MessageDeadLettered)
        )
        assert given_up.reason == "reply_unroutable"


async def test_replies_to_foreign_queues_do_not_occupy_the_prefetch(broker_url):
    async with (
        engine_stub(broker_url) as engine,
        running_service(broker_url, PaymentsParticipant(), participant_prefetch=2) as running,
    ):
        for _ in range(6):
            await engine.send(make_command(), reply_to="nowhere")
        await engine.send(make_command())
        assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED
        assert len(running.events.of_type(MessageDeadLettered)) == 6


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
            aside = await running.events.wait_for(
                lambda event: isinstance(event, MessageDeadLettered)
            )
            assert (aside.reason, aside.queue) == (reason, "saga.participant.payments")
            await engine.send(make_command())
            assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED
            await running.shut_down()
        async with running_service(broker_url, PaymentsParticipant()) as other:
            await engine.send(make_command())
            assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED
            assert other.events.of_type(MessageDeadLettered) == []


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
        assert len(running.events.of_type(HandlerFinished)) == 2


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
            await running.events.wait_for(lambda event: isinstance(event, ProcessStopping))
            assert (await running.service.readiness())["shutting_down"]
            payments.may_finish.set()
            await running.shut_down()
            assert (await engine.take_reply()).command_ref.run_id == slow.run_id
            assert running.events.of_type(ProcessStopped) == [
                ProcessStopped(program=Program.PARTICIPANT, clean=True)
            ]
        assert await booking_rows(user_engine) == [("o-1", 1)]
        async with running_service(broker_url, payments):
            assert (await engine.take_reply()).command_ref.run_id == late.run_id


async def test_a_shutdown_leaves_an_unroutable_reply_to_the_next_process(broker_url):
    async with command_sender(broker_url) as sender:
        async with running_service(broker_url, PaymentsParticipant()) as running:
            await sender.send(make_command())
            await running.events.wait_for(returned)
            await running.shut_down()
            (stopped,) = running.events.of_type(ProcessStopped)
            assert stopped.clean
        async with (
            engine_stub(broker_url) as engine,
            running_service(broker_url, PaymentsParticipant()),
        ):
            assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED


async def test_a_shutdown_ends_in_time_even_if_a_handler_does_not(broker_url, monkeypatch):
    monkeypatch.setattr("saga_engine.shutdown.SHUTDOWN_RESERVE", 0.1)
    payments = PaymentsParticipant()
    async with (
        command_sender(broker_url) as sender,
        running_service(broker_url, payments, shutdown_timeout=0.3) as running,
    ):
        await sender.send(make_command(payload={"order_id": "o-1", "card": "slow"}))
        await payments.entered.wait()
        await running.shut_down()
        assert running.events.of_type(ProcessStopped) == [
            ProcessStopped(program=Program.PARTICIPANT, clean=False)
        ]


async def test_a_participant_reports_its_readiness(broker_url, user_engine):
    async with running_service(broker_url, PaymentsParticipant(user_engine)) as running:
        assert await running.service.readiness() == {
            "database of payments": None,
            "handlers": None,
            "publishing": None,
            "consuming": None,
            "shutting_down": None,
        }


async def test_several_participants_share_a_process(broker_url):
    payments, stock = PaymentsParticipant(), Participant("stock")

    @stock.command("stock.reserve")
    async def reserve(_: ChargeCard) -> str:
        return "reserved"

    async with (
        engine_stub(broker_url) as engine,
        running_service(broker_url, payments, Only(stock)),
    ):
        await engine.send(make_command(name="stock.reserve"))
        assert (await engine.take_reply()).body == "reserved"
        await engine.send(make_command())
        assert (await engine.take_reply()).body["charge_id"]


class Only:
    def __init__(self, participant):
        self.participant = participant


def service(*participants, **changes):
    return ParticipantService(participants, Settings(**changes), EventList())


def test_two_participants_with_a_handler_for_one_command_are_refused():
    first, second = PaymentsParticipant().participant, Participant("other")

    @second.command("payment.charge")
    async def charge(command: ChargeCard) -> None: ...

    with pytest.raises(ConfigurationError, match=r"both handle payment\.charge"):
        service(first, second)
    with pytest.raises(ConfigurationError, match="Two participants"):
        service(first, PaymentsParticipant().participant)
    with pytest.raises(ConfigurationError, match="handles no command"):
        service(Participant("idle"))


async def test_a_missing_broker_url_is_an_error():
    with pytest.raises(ConfigurationError, match="BROKER_URL is not set"):
        async with service(PaymentsParticipant().participant):
            pass


async def test_an_unusable_database_is_reported_in_a_sentence(user_engine):
    for url, kind, words in (
        ("sqlite:///x", ConfigurationError, "postgresql"),
        ("postgresql+asyncpg://u:secret@127.0.0.1:1/x", StoreUnavailable, "cannot be reached"),
    ):
        with pytest.raises(kind, match=words) as found:
            async with service(PaymentsParticipant(url).participant):
                pass
        assert "secret" not in str(found.value)
    unprepared = Participant("payments", database=user_engine, create_barrier=False)
    unprepared.command("payment.charge")(PaymentsParticipant(user_engine)._charge(user_engine))
    with pytest.raises(ConfigurationError, match="no table saga_barrier"):
        async with service(unprepared):
            pass


async def test_a_database_outage_uses_no_attempt_of_a_command_that_has_not_started(
    broker_url,
):
    concurrency, number = 5, 200
    commands = [make_command(payload={"order_id": f"o-{each}"}) for each in range(number)]
    async with (
        PostgresServer(use_tcp=True) as server,
        running_proxy(server.url) as proxy,
        bookings_engine(server.url) as user_engine,
        engine_stub(broker_url) as engine,
        running_service(
            broker_url, PaymentsParticipant(proxy.url), participant_concurrency=concurrency
        ) as running,
    ):
        for asked in commands:
            await engine.send(asked)
        replies = await engine.take_replies(20)
        await proxy.refuse()
        await running.events.wait_for(lambda event: isinstance(event, DatabaseUnavailable))
        checks = await running.service.readiness()
        assert checks["database of payments"]
        await sleep(2)
        await proxy.accept()
        replies += await engine.take_replies(number - len(replies))
        failed = {each.command_ref.run_id for each in replies if each.outcome is Outcome.FAILED}
        assert len(failed) <= concurrency, "only what was in a handler at that moment"
        for asked in commands:
            if asked.run_id in failed:
                await engine.send(replace(asked, attempt=2))
        assert all(e.outcome is Outcome.SUCCEEDED for e in await engine.take_replies(len(failed)))
        assert len(await booking_rows(user_engine)) == number
        emitted = running.events.of_type(DatabaseUnavailable)
        assert [each.operation for each in emitted].count("participant") == 1
        assert len(running.events.of_type(DatabaseRecovered)) == 1
        assert not running.events.of_type(InternalErrorCaught)
        assert not running.events.of_type(HandlerFailed)
        assert not any(each.redelivered for each in running.events.of_type(MessagesConsumed))
        assert (await running.service.readiness())["database of payments"] is None
