import asyncio
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.participant import CommandContext, Failed, Participant, Rejected
from saga_engine.participant.database import ParticipantDatabase
from saga_engine.settings import Settings
from saga_engine.telemetry.events import HandlerFailed, HandlerFinished, InternalErrorCaught
from saga_engine.vocabulary import Direction, Outcome
from tests.kit.payments_participant import (
    FAR_FUTURE,
    Charge,
    ChargeCard,
    DirectExecutor,
    EventList,
    PaymentsParticipant,
    booking_rows,
    bookings_engine,
    direct_executor,
    make_command,
)


def nested(levels):
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.fixture
def payments():
    return PaymentsParticipant()


@pytest.fixture
def executor(payments):
    return DirectExecutor(payments, None, EventList())


async def test_a_handler_without_a_database_gets_the_idempotency_key_to_pass_on(payments, executor):
    run_id = uuid4()
    for attempt in (1, 2):
        assert (await executor(make_command(run_id, attempt=attempt)))[0] is Outcome.SUCCEEDED
    assert payments.contexts[0] == CommandContext(
        command="payment.charge",
        run_id=run_id,
        saga="place-order",
        step="charge",
        attempt=1,
        direction=Direction.ACTION,
        idempotency_key=f"{run_id}/charge/action/1",
        deadline=FAR_FUTURE,
    )
    assert payments.contexts[1].idempotency_key == payments.contexts[0].idempotency_key


async def test_an_unknown_command_fails_and_its_name_is_not_a_label(executor):
    outcome, body = await executor(make_command(name="payment.steal"))
    assert (outcome, body["code"]) == (Outcome.FAILED, "unknown_command")
    assert [event.command for event in executor.events.of_type(HandlerFinished)] == ["unknown"]


async def test_an_invalid_payload_fails_without_quoting_it(payments, executor):
    outcome, body = await executor(make_command(payload={"order_id": 4111_1111_1111_1111}))
    assert (outcome, body["code"]) == (Outcome.FAILED, "invalid_payload")
    assert "order_id" in body["message"]
    assert "4111" not in str(body)
    assert payments.calls == []


async def test_an_exception_is_reported_by_class_and_location_without_its_text(executor):
    outcome, body = await executor(make_command(payload={"order_id": "o-1", "card": "broken"}))
    assert outcome is Outcome.FAILED
    assert body == {"code": "OSError", "message": "OSError", "details": None}
    (failed,) = executor.events.of_type(HandlerFailed)
    assert "payments_participant.py:" in failed.problem
    assert (failed.code, failed.step, failed.command) == ("OSError", "charge", "payment.charge")
    (finished,) = executor.events.of_type(HandlerFinished)
    assert finished.code == "OSError"
    assert not executor.events.of_type(InternalErrorCaught), "it is not a bug of the engine"
    assert "secret" not in str(executor.events)


async def test_a_failed_keeps_the_authors_text(executor):
    outcome, body = await executor(make_command(payload={"order_id": "o-1", "card": "unsure"}))
    assert outcome is Outcome.FAILED
    assert body == {"code": "gateway", "message": "The gateway is unavailable.", "details": None}


async def test_a_rejection_without_a_database_is_rejected(executor):
    outcome, body = await executor(make_command(payload={"order_id": "o-1", "card": "declined"}))
    assert (outcome, body["code"]) == (Outcome.REJECTED, "declined")


async def test_a_handler_that_hangs_fails_after_the_timeout(payments):
    executor = DirectExecutor(payments, None, EventList(), participant_handler_timeout=0.05)
    outcome, body = await executor(make_command(payload={"order_id": "o-1", "card": "slow"}))
    assert (outcome, body["code"]) == (Outcome.FAILED, "timeout")


async def test_a_handler_that_hangs_in_its_transaction_leaves_nothing(database_url):
    slow = make_command(payload={"order_id": "o-1", "card": "slow"})
    async with (
        bookings_engine(database_url) as engine,
        direct_executor(engine, participant_handler_timeout=1) as (
            payments,
            executor,
        ),
    ):
        outcome, body = await executor(slow)
        assert (outcome, body["code"]) == (Outcome.FAILED, "timeout")
        assert await booking_rows(engine) == []
        payments.may_finish.set()
        assert (await executor(slow))[0] is Outcome.SUCCEEDED
        assert await booking_rows(engine) == [("o-1", 1)]


async def test_a_handler_that_cancels_itself_fails_and_nothing_else_is_cancelled(executor):
    outcome, body = await executor(make_command(payload={"order_id": "o-1", "card": "cancelling"}))
    assert (outcome, body["code"]) == (Outcome.FAILED, "CancelledError")


async def test_a_command_fails_if_the_database_is_unavailable(database_url, postgres):
    async with bookings_engine(database_url) as engine, direct_executor(engine) as (_, executor):
        await postgres.drop_database(engine.url.database)
        outcome, body = await executor(make_command())
        assert outcome is Outcome.FAILED
        assert "postgres" not in body["message"]
        await postgres.create_database(engine.url.database)


@pytest.mark.parametrize(
    "result", ["a text", Charge(charge_id="\0"), Charge(charge_id="\ud800"), None]
)
async def test_an_invalid_result_fails(result):
    participant = Participant("payments")

    @participant.command("payment.charge")
    async def charge(_: ChargeCard) -> Charge:
        answered: Charge = result  # not always, on purpose
        return answered

    outcome, body = await performed(participant)
    assert (outcome, body["code"]) == (Outcome.FAILED, "invalid_result")


async def test_a_result_beyond_the_largest_body_fails():
    participant = Participant("payments")

    @participant.command("payment.charge")
    async def charge(_: ChargeCard) -> Charge:
        return Charge(charge_id="x" * 300_000)

    outcome, body = await performed(participant)
    assert (outcome, body["code"]) == (Outcome.FAILED, "invalid_result")


class Giving:
    """A participant that writes to its table of bookings and answers with *result*."""

    def __init__(self, engine, result):
        self.participant = Participant("payments", database=engine)

        @self.participant.command("payment.charge")
        async def charge(command: ChargeCard, tx: AsyncConnection) -> Any:
            await tx.execute(
                text("INSERT INTO bookings VALUES (:order, 1)"), {"order": command.order_id}
            )
            return result


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        ([0] * 60_000, "max_body_json_values"),
        (nested(70), "max_body_depth"),
        ([1e300] * 1000, "exponents"),
        (float("nan"), "arrive altered"),
        ((1, 2), "arrive altered"),
    ],
)
async def test_a_result_the_engine_would_not_read_fails_and_commits_nothing(
    database_url, result, problem
):
    async with bookings_engine(database_url) as engine:
        database = ParticipantDatabase(engine, Settings())
        await database.prepare(create_barrier=True)
        outcome, body = await DirectExecutor(Giving(engine, result), database, EventList())(
            make_command()
        )
        await database.close()
        assert (outcome, body["code"]) == (Outcome.FAILED, "invalid_result")
        assert problem in body["message"]
        assert await booking_rows(engine) == []


@pytest.mark.parametrize("refusal", [Rejected, Failed])
@pytest.mark.parametrize(
    "words",
    [
        ("",),
        ("x" * 129,),
        (7,),
        ("code", 7),
        ("code", "\0"),
        ("code", "", object()),
        ("code", "", float("nan")),
        ("code", "", nested(501)),
    ],
)
def test_a_handler_error_that_cannot_be_sent_is_refused_when_it_is_made(refusal, words):
    with pytest.raises(ValueError, match="must be a text"):
        refusal(*words)


async def test_handlers_run_side_by_side(payments, executor):
    slow = make_command(payload={"order_id": "o-1", "card": "slow"})
    async with asyncio.TaskGroup() as group:
        first = group.create_task(executor(slow))
        await payments.entered.wait()
        assert (await executor(make_command()))[0] is Outcome.SUCCEEDED
        assert not first.done()
        payments.may_finish.set()


async def performed(participant):
    class Only:
        def __init__(self):
            self.participant = participant

    return await DirectExecutor(Only(), None, EventList())(make_command())
