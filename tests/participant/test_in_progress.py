"""A command that another delivery is executing waits without a slot, and not forever."""

from dataclasses import replace

from saga_engine.participant import barrier
from saga_engine.participant.sql_barrier_table import SqlBarrierTable
from saga_engine.telemetry.events import (
    BarrierHit,
    HandlerFinished,
    MessagesConsumed,
)
from saga_engine.vocabulary import (
    Outcome,
)
from tests.kit.participant_service import engine_stub, running_service
from tests.kit.payments_participant import (
    PaymentsParticipant,
    booking_rows,
    make_command,
    make_refund,
)
from tests.kit.proxy import running_proxy


async def claim(connection, command):
    """Claim a command in a transaction that belongs to another process."""
    table = SqlBarrierTable(connection)
    assert await barrier.claim_command(table, command, compensates_local_action=False) is None


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
                await claim(gone, each)
                await engine.send(each)
            for _ in range(10):
                await engine.send(other := make_command())
                assert (await engine.take_reply()).command_ref.run_id == other.run_id
        answered = {each.command_ref.run_id for each in await engine.take_replies(3)}
        assert answered == {each.run_id for each in held}
        assert len(running.events.matching(MessagesConsumed)) == 13
    assert len(await booking_rows(user_engine)) == 13


async def test_only_the_last_attempt_waits_for_an_earlier_one(broker_url, user_engine):
    first = make_command()
    async with (
        engine_stub(broker_url) as engine,
        running_service(broker_url, PaymentsParticipant(user_engine)) as running,
    ):
        async with user_engine.connect() as gone:
            await claim(gone, first)
            for attempt in (1, 2, 3):
                await engine.send(replace(first, attempt=attempt))
            given_up = await engine.take_replies(2)
            assert {each.command_ref.attempt for each in given_up} == {1, 2}
            assert {each.failure.code for each in given_up} == {"in_progress"}
        last = await engine.take_reply()
        assert (last.command_ref.attempt, last.outcome) == (3, Outcome.SUCCEEDED)
        assert [event.reason for event in running.events.matching(BarrierHit)] == [
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
        await claim(gone, charge)
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
                await claim(gone, charge)
                await engine.send(charge)
                for times in (1, 2, 3):
                    await running.events.wait_until(lambda _, n=times: consumed(running) == n)
                    proxy.reset()
                await running.events.wait_until(lambda _: consumed(running) == 4)
            assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED
            await running.shut_down()
        assert len(running.events.matching(HandlerFinished)) == 1


def consumed(running):
    """How many deliveries have had their turn."""
    return len(running.events.matching(MessagesConsumed))


async def test_a_shutdown_leaves_commands_that_are_in_progress_elsewhere(broker_url, user_engine):
    charge = make_command()
    async with engine_stub(broker_url) as engine:
        async with (
            running_service(broker_url, PaymentsParticipant(user_engine)) as running,
            user_engine.connect() as gone,
        ):
            await claim(gone, charge)
            await engine.send(charge)
            await running.events.wait_until(lambda event: isinstance(event, MessagesConsumed))
            await running.shut_down()
        async with running_service(broker_url, PaymentsParticipant(user_engine)):
            assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED
