"""What a handler does to its task has no effect outside of it, and a call always ends."""

import asyncio
import gc
import sys
from contextlib import suppress

import pytest

from saga_engine.participant.handler_calls import HandlerCalls
from saga_engine.telemetry.events import (
    HandlerAbandoned,
    HandlerFailed,
)
from saga_engine.vocabulary import Outcome
from tests.kit.misbehaving_participant import (
    HOLD,
    SHORT,
    HandlerChoice,
    MisbehavingParticipant,
    UncancellableParticipant,
    turn_of_the_loop,
)
from tests.kit.participant_service import engine_stub, running_service
from tests.kit.payments_participant import (
    booking_rows,
    bookings_engine,
    make_command,
)


def exit_now(*_):
    sys.exit("secret-password")


async def in_itself():
    exit_now()


async def in_a_thread():
    await asyncio.to_thread(exit_now)


async def in_a_task_that_is_awaited():
    await asyncio.get_running_loop().create_task(in_itself())


async def in_a_task_group():
    async with asyncio.TaskGroup() as group:
        group.create_task(in_itself())


async def in_an_unawaited_task():
    _ = asyncio.get_running_loop().create_task(in_itself())
    await turn_of_the_loop()
    exit_now()


WAYS = [
    in_itself,
    in_a_thread,
    in_a_task_that_is_awaited,
    in_a_task_group,
    in_an_unawaited_task,
]


@pytest.mark.parametrize("way", WAYS)
async def test_a_handler_that_exits_fails_and_the_commands_beside_it_go_on(broker_url, way):
    meeting = asyncio.Event()

    async def charge(asked: HandlerChoice) -> str:
        if asked.card == "exit":
            await meeting.wait()
            await way()
        meeting.set()
        return asked.order_id

    async with (
        engine_stub(broker_url) as engine,
        running_service(broker_url, MisbehavingParticipant(charge)) as running,
    ):
        exiting = make_command(payload={"order_id": "o-1", "card": "exit"})
        await engine.send(exiting)
        await engine.send(make_command(payload={"order_id": "o-2"}))
        replies = {each.command_ref.run_id: each for each in await engine.take_replies(2)}
        failed = replies.pop(exiting.run_id)
        assert (failed.outcome, failed.failure.code) == (Outcome.FAILED, "SystemExit")
        assert [each.outcome for each in replies.values()] == [Outcome.SUCCEEDED]
        await running.shut_down()
        (event,) = running.events.matching(HandlerFailed)
        assert (event.code, event.step, event.run_id) == (
            "SystemExit",
            "charge",
            exiting.run_id,
        )
        assert "secret" not in str(running.events)


async def forgetful():
    """Time out as old libraries do: cancel the current task, and never take that back."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


@pytest.mark.parametrize("times", [1, 2])
async def test_a_command_whose_task_was_cancelled_gets_a_reply(broker_url, times):
    """With a prefetch of one, what is never answered would stop the participant."""

    async def charge(asked: HandlerChoice) -> str:
        for _ in range(times):
            await forgetful()
        if asked.card == "raise":
            raise asyncio.CancelledError
        async with asyncio.timeout(5):
            await turn_of_the_loop()
        return asked.order_id

    async with (
        engine_stub(broker_url) as engine,
        running_service(
            broker_url, MisbehavingParticipant(charge), participant_prefetch=1
        ) as running,
    ):
        await engine.send(make_command())
        assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED
        await engine.send(make_command(payload={"order_id": "o-1", "card": "raise"}))
        assert (await engine.take_reply()).failure.code == "CancelledError"
        await engine.send(make_command())
        assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED
        assert [event.code for event in running.events.matching(HandlerFailed)] == [
            "CancelledError"
        ]


async def test_a_handler_that_ignores_its_timeout_gets_a_reply_and_cannot_commit(
    broker_url, database_url
):
    async with bookings_engine(database_url) as user_engine:
        payments = UncancellableParticipant(user_engine)
        async with (
            engine_stub(broker_url) as engine,
            running_service(broker_url, payments, participant_concurrency=2, **SHORT) as running,
        ):
            held = make_command(payload=HOLD)
            await engine.send(held)
            assert (await engine.take_reply()).failure.code == "timeout"
            (event,) = running.events.matching(HandlerAbandoned)
            assert (event.still_running, event.run_id, event.step) == (
                True,
                held.run_id,
                "charge",
            )
            payments.may_finish.set()
            await engine.send(make_command())
            assert (await engine.take_reply()).outcome is Outcome.SUCCEEDED
            assert await booking_rows(user_engine) == [("o-1", 1), ("o-1", 2)]


async def test_a_call_whose_task_is_cancelled_before_it_starts_ends():
    """Nothing warns of a coroutine that was never awaited: the tests would fail."""
    calls = HandlerCalls(grace_period=1.0)

    def cancel():
        [task] = calls._finished_signals
        task.cancel()

    async def work():
        raise AssertionError("it was cancelled before")

    asyncio.get_running_loop().call_soon(cancel)
    with pytest.raises(RuntimeError):
        await calls.run(object(), work(), lambda _: None)
    gc.collect()
