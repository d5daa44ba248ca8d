"""Telemetry names the command of each event, and equal failures are throttled."""

import asyncio

from saga_engine.telemetry.events import (
    HandlerAbandoned,
    HandlerFailed,
    HandlerFinished,
)
from saga_engine.vocabulary import Outcome
from tests.kit.events import EventRecorder
from tests.kit.misbehaving_participant import (
    HOLD,
    HandlerChoice,
    MisbehavingParticipant,
    UncancellableParticipant,
)
from tests.kit.participant_service import engine_stub, running_service
from tests.kit.payments_participant import DirectExecutor, make_command


async def test_a_shutdown_names_the_handlers_it_abandons_and_ends(broker_url):
    payments = UncancellableParticipant()
    async with (
        engine_stub(broker_url) as engine,
        running_service(broker_url, payments, shutdown_timeout=1) as running,
    ):
        held = make_command(payload=HOLD)
        await engine.send(held)
        await running.events.wait_until(lambda event: type(event).__name__ == "MessagesConsumed")
        await running.shut_down()
        (event,) = running.events.matching(HandlerAbandoned)
        assert (event.still_running, event.run_id, event.command) == (
            True,
            held.run_id,
            "payment.charge",
        )
        payments.may_finish.set()


async def test_repeated_failures_are_counted_and_logged_once():
    async def charge(_: HandlerChoice) -> None:
        raise OSError

    executor = DirectExecutor(MisbehavingParticipant(charge), None, EventRecorder())
    for _ in range(5):
        await executor(make_command())
    assert [event.throttled for event in executor.events.matching(HandlerFailed)] == [
        None,
        True,
        True,
        True,
        True,
    ]
    executor = DirectExecutor(
        MisbehavingParticipant(charge), None, EventRecorder(), log_throttle_interval=0.001
    )
    for _ in range(2):
        await executor(make_command())
        over = asyncio.Event()
        asyncio.get_running_loop().call_later(0.001, over.set)
        await over.wait()
    assert [event.throttled for event in executor.events.matching(HandlerFailed)] == [None, None]


async def test_an_unknown_command_fails_and_its_name_is_not_a_label(executor):
    outcome, body = await executor(make_command(name="payment.steal"))
    assert (outcome, body["code"]) == (Outcome.FAILED, "unknown_command")
    assert [event.command for event in executor.events.matching(HandlerFinished)] == ["unknown"]
