import asyncio
from types import SimpleNamespace

import pytest

from saga_engine.errors import ConfigurationError, StoreUnavailable
from saga_engine.participant import Participant
from saga_engine.participant.service import ParticipantService
from saga_engine.settings import Settings
from saga_engine.telemetry.events import (
    BarrierHit,
    EventLoopLagMeasured,
    MessagesConsumed,
    MessagesPublished,
    ProcessStopped,
)
from saga_engine.vocabulary import (
    Outcome,
    Program,
)
from tests.kit.connections import wait_until
from tests.kit.events import EventRecorder
from tests.kit.participant_service import command_sender, engine_stub, is_reply, running_service
from tests.kit.payments_participant import (
    ChargeCard,
    PaymentsParticipant,
    booking_rows,
    make_command,
    make_refund,
)


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


async def test_it_reports_how_late_its_event_loop_is(broker_url):
    """As a worker does: all handlers of the process wait for one that blocks it."""
    async with running_service(broker_url, PaymentsParticipant()) as running:
        await running.events.wait_for(EventLoopLagMeasured)


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

        def published():
            return running.events.matching(MessagesPublished)

        # A reply may arrive before its confirm, after which it is counted.
        await wait_until(lambda: sum(each.messages for each in published()) == len(commands))
        assert len(published()) < len(commands)


def nothing(_):
    """A fault: the publish is swallowed, neither delivered nor confirmed."""


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
            assert second.events.matching(BarrierHit)[0].reason == "repeated"
            assert second.events.matching(MessagesConsumed)[0].redelivered == 1
    assert payments.calls == ["charge"]
    assert await booking_rows(user_engine) == [("o-1", 1)]


async def test_a_participant_replies_after_it_has_reconnected(development_broker, user_engine):
    url, payments = development_broker.url, PaymentsParticipant(user_engine)
    async with engine_stub(url) as engine, running_service(url, payments):
        await engine.send(make_command(payload={"order_id": "o-1", "card": "slow"}))
        await payments.entered.wait()
        development_broker.faults.abort_connections()
        payments.may_finish.set()
        assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED
    assert await booking_rows(user_engine) == [("o-1", 1)]


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
        assert running.events.matching(ProcessStopped) == [
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
        running_service(broker_url, payments, SimpleNamespace(participant=stock)),
    ):
        await engine.send(make_command(name="stock.reserve"))
        assert (await engine.take_reply()).body == "reserved"
        await engine.send(make_command())
        assert (await engine.take_reply()).body["charge_id"]


def service(*participants, **changes):
    return ParticipantService(participants, Settings(**changes), EventRecorder())


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
