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
    direct_executor,
    ledger_engine,
    ledger_rows,
    make_command,
)


def nested(levels):
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.fixture
def shop():
    return PaymentsParticipant()


@pytest.fixture
def desk(shop):
    return DirectExecutor(shop, None, EventList())


async def test_a_handler_without_a_database_gets_the_idempotency_key_to_pass_on(shop, desk):
    run_id = uuid4()
    for attempt in (1, 2):
        assert (await desk(make_command(run_id, attempt=attempt)))[0] is Outcome.SUCCEEDED
    assert shop.contexts[0] == CommandContext(
        command="payment.charge",
        run_id=run_id,
        saga="place-order",
        step="charge",
        attempt=1,
        direction=Direction.ACTION,
        idempotency_key=f"{run_id}/charge/action/1",
        deadline=FAR_FUTURE,
    )
    assert shop.contexts[1].idempotency_key == shop.contexts[0].idempotency_key


async def test_an_unknown_command_fails_and_its_name_is_no_label(desk):
    outcome, body = await desk(make_command(name="payment.steal"))
    assert (outcome, body["code"]) == (Outcome.FAILED, "unknown_command")
    assert [fact.command for fact in desk.events.of_type(HandlerFinished)] == ["unknown"]


async def test_a_payload_that_does_not_fit_fails_without_quoting_it(shop, desk):
    outcome, body = await desk(make_command(payload={"order_id": 4111_1111_1111_1111}))
    assert (outcome, body["code"]) == (Outcome.FAILED, "invalid_payload")
    assert "order_id" in body["message"]
    assert "4111" not in str(body)
    assert shop.calls == []


async def test_an_exception_is_told_by_its_class_and_place_and_never_by_its_text(desk):
    outcome, body = await desk(make_command(payload={"order_id": "o-1", "card": "broken"}))
    assert outcome is Outcome.FAILED
    assert body == {"code": "OSError", "message": "OSError", "details": None}
    (failed,) = desk.events.of_type(HandlerFailed)
    assert "payments_participant.py:" in failed.problem
    assert (failed.code, failed.step, failed.command) == ("OSError", "charge", "payment.charge")
    (finished,) = desk.events.of_type(HandlerFinished)
    assert finished.code == "OSError"
    assert not desk.events.of_type(InternalErrorCaught), "it is not a bug of the engine"
    assert "secret" not in str(desk.events)


async def test_a_failure_of_the_author_speaks_in_the_authors_words(desk):
    outcome, body = await desk(make_command(payload={"order_id": "o-1", "card": "unsure"}))
    assert outcome is Outcome.FAILED
    assert body == {"code": "gateway", "message": "The gateway is away.", "details": None}


async def test_a_rejection_without_a_database_is_rejected(desk):
    outcome, body = await desk(make_command(payload={"order_id": "o-1", "card": "declined"}))
    assert (outcome, body["code"]) == (Outcome.REJECTED, "declined")


async def test_a_handler_that_hangs_fails_after_the_timeout(shop):
    desk = DirectExecutor(shop, None, EventList(), participant_handler_timeout=0.05)
    outcome, body = await desk(make_command(payload={"order_id": "o-1", "card": "slow"}))
    assert (outcome, body["code"]) == (Outcome.FAILED, "timeout")


async def test_a_handler_that_hangs_in_its_transaction_leaves_nothing(database_url):
    slow = make_command(payload={"order_id": "o-1", "card": "slow"})
    async with (
        ledger_engine(database_url) as engine,
        direct_executor(engine, participant_handler_timeout=1) as (
            shop,
            desk,
        ),
    ):
        outcome, body = await desk(slow)
        assert (outcome, body["code"]) == (Outcome.FAILED, "timeout")
        assert await ledger_rows(engine) == []
        shop.may_finish.set()
        assert (await desk(slow))[0] is Outcome.SUCCEEDED
        assert await ledger_rows(engine) == [("o-1", 1)]


async def test_a_handler_that_cancels_itself_fails_and_nothing_else_is_cancelled(desk):
    outcome, body = await desk(make_command(payload={"order_id": "o-1", "card": "cancelling"}))
    assert (outcome, body["code"]) == (Outcome.FAILED, "CancelledError")


async def test_a_database_that_is_away_fails_the_command(database_url, postgres):
    async with ledger_engine(database_url) as engine, direct_executor(engine) as (_, desk):
        await postgres.drop_database(engine.url.database)
        outcome, body = await desk(make_command())
        assert outcome is Outcome.FAILED
        assert "postgres" not in body["message"]
        await postgres.create_database(engine.url.database)


@pytest.mark.parametrize(
    "result", ["a text", Charge(charge_id="\0"), Charge(charge_id="\ud800"), None]
)
async def test_a_result_that_does_not_fit_or_cannot_travel_fails(result):
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
    """A participant that writes to its ledger and answers with *result*."""

    def __init__(self, engine, result):
        self.participant = Participant("payments", database=engine)

        @self.participant.command("payment.charge")
        async def charge(command: ChargeCard, tx: AsyncConnection) -> Any:
            await tx.execute(
                text("INSERT INTO ledger VALUES (:order, 1)"), {"order": command.order_id}
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
    async with ledger_engine(database_url) as engine:
        database = ParticipantDatabase(engine, Settings())
        await database.prepare(create_barrier=True)
        outcome, body = await DirectExecutor(Giving(engine, result), database, EventList())(
            make_command()
        )
        await database.close()
        assert (outcome, body["code"]) == (Outcome.FAILED, "invalid_result")
        assert problem in body["message"]
        assert await ledger_rows(engine) == []


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
def test_a_refusal_that_cannot_travel_is_refused_where_it_is_made(refusal, words):
    with pytest.raises(ValueError, match="must be a text"):
        refusal(*words)


async def test_handlers_run_side_by_side(shop, desk):
    slow = make_command(payload={"order_id": "o-1", "card": "slow"})
    async with asyncio.TaskGroup() as group:
        first = group.create_task(desk(slow))
        await shop.entered.wait()
        assert (await desk(make_command()))[0] is Outcome.SUCCEEDED
        assert not first.done()
        shop.may_finish.set()


async def performed(participant):
    class Only:
        def __init__(self):
            self.participant = participant

    return await DirectExecutor(Only(), None, EventList())(make_command())
