"""Every command gets a result, for everything that its handler returns or raises."""

import asyncio
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, BeforeValidator, PlainSerializer
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from saga_engine.participant import Failed, Participant, Rejected
from saga_engine.participant.database import ParticipantDatabase
from saga_engine.settings import Settings
from saga_engine.telemetry.events import (
    HandlerFailed,
    HandlerFinished,
    InternalErrorCaught,
)
from saga_engine.vocabulary import Json, Outcome
from tests.kit.events import EventRecorder
from tests.kit.misbehaving_participant import (
    HandlerChoice,
    MisbehavingParticipant,
)
from tests.kit.nesting import nested_lists
from tests.kit.payments_participant import (
    Charge,
    ChargeCard,
    DirectExecutor,
    booking_rows,
    bookings_engine,
    make_command,
)


class Hostile(Rejected):
    """Its text cannot be had."""

    def __init__(self):
        Exception.__init__(self)

    def __str__(self):
        raise SystemExit(3)

    __repr__ = __str__


def exits(value):
    if value == "exit":
        raise SystemExit(1)
    return value


class Exiting(BaseModel):
    order_id: Annotated[str, BeforeValidator(exits)]


class Unwritable(BaseModel):
    order_id: Annotated[str, PlainSerializer(exits)]


@pytest.mark.parametrize("where", ["validator", "serializer"])
async def test_a_type_that_exits_fails_the_command(where):
    async def validated(_: Exiting) -> None:
        """Never called."""

    async def written(asked: HandlerChoice) -> Unwritable:
        return Unwritable.model_construct(order_id=asked.order_id)

    executor = DirectExecutor(
        MisbehavingParticipant(validated if where == "validator" else written),
        None,
        EventRecorder(),
    )
    outcome, body = await executor(make_command(payload={"order_id": "exit"}))
    assert outcome is Outcome.FAILED
    # pydantic itself turns what a serializer raises into an error of its own.
    assert body["code"] in ("SystemExit", "invalid_result")


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit(), "GeneratorExit"),
        (StopAsyncIteration(), "StopAsyncIteration"),
        (asyncio.CancelledError(), "CancelledError"),
        (type("Ä" * 300, (Exception,), {})(), "Ä" * 128),
        (type("a b\n", (BaseException,), {})(), "a_b_"),
        (type("", (BaseException,), {})(), "Exception"),
        (BaseExceptionGroup("secret", [SystemExit(1)]), "SystemExit"),
        (ExceptionGroup("secret", [OSError("secret"), KeyError("secret")]), "ExceptionGroup"),
    ],
)
async def test_any_exception_of_a_handler_is_a_failure_named_by_its_class(raised, code):
    async def charge(_: HandlerChoice) -> None:
        raise raised

    executor = DirectExecutor(MisbehavingParticipant(charge), None, EventRecorder())
    outcome, body = await executor(make_command())
    assert (outcome, body["code"]) == (Outcome.FAILED, code)
    assert [event.code for event in executor.events.matching(HandlerFailed)] == [code]
    assert [event.code for event in executor.events.matching(HandlerFinished)] == [code]
    assert not executor.events.matching(InternalErrorCaught)


async def test_a_handler_error_of_a_hostile_class_is_replied_with_its_name():
    async def charge(_: HandlerChoice) -> None:
        raise Hostile

    outcome, body = await DirectExecutor(MisbehavingParticipant(charge), None, EventRecorder())(
        make_command()
    )
    assert (outcome, body["code"]) == (Outcome.REJECTED, "Hostile")


async def test_a_handler_error_that_was_modified_cannot_become_an_unreadable_reply():
    async def charge(_: HandlerChoice) -> None:
        details: list[str] = []
        refusal = Failed("full", "It is full.", details)
        details.append("x" * 100_000)
        raise refusal

    outcome, body = await DirectExecutor(MisbehavingParticipant(charge), None, EventRecorder())(
        make_command()
    )
    assert (outcome, body["code"]) == (Outcome.FAILED, "Failed")


@pytest.mark.parametrize(
    "limit", [{"max_body_depth": 2}, {"max_body_json_values": 5}, {"max_body_bytes": 60}]
)
async def test_a_handler_error_is_limited_by_the_settings_not_by_their_defaults(limit):
    async def charge(_: HandlerChoice) -> None:
        raise Rejected("declined", "The card was declined.", {"why": [[1, 2, 3, 4, 5]]})

    outcome, body = await DirectExecutor(
        MisbehavingParticipant(charge), None, EventRecorder(), **limit
    )(make_command())
    assert (outcome, body["code"]) == (Outcome.REJECTED, "Rejected")


async def test_the_details_of_a_handler_error_may_be_as_deep_as_the_settings_allow():
    details: Json = []
    for _ in range(100):
        details = [details]

    async def charge(_: HandlerChoice) -> None:
        raise Rejected("declined", "The card was declined.", details)

    outcome, body = await DirectExecutor(
        MisbehavingParticipant(charge), None, EventRecorder(), max_body_depth=200
    )(make_command())
    assert (outcome, body["code"], body["details"]) == (Outcome.REJECTED, "declined", details)


async def test_an_exception_is_reported_by_class_and_location_without_its_text(executor):
    outcome, body = await executor(make_command(payload={"order_id": "o-1", "card": "broken"}))
    assert outcome is Outcome.FAILED
    assert body == {"code": "OSError", "message": "OSError", "details": None}
    (failed,) = executor.events.matching(HandlerFailed)
    assert "payments_participant.py:" in failed.problem
    assert (failed.code, failed.step, failed.command) == ("OSError", "charge", "payment.charge")
    (finished,) = executor.events.matching(HandlerFinished)
    assert finished.code == "OSError"
    assert not executor.events.matching(InternalErrorCaught), "it is not a bug of the engine"
    assert "secret" not in str(executor.events)


async def test_a_failed_keeps_the_authors_text(executor):
    outcome, body = await executor(make_command(payload={"order_id": "o-1", "card": "unsure"}))
    assert outcome is Outcome.FAILED
    assert body == {"code": "gateway", "message": "The gateway is unavailable.", "details": None}


async def test_a_rejection_without_a_database_is_rejected(executor):
    outcome, body = await executor(make_command(payload={"order_id": "o-1", "card": "declined"}))
    assert (outcome, body["code"]) == (Outcome.REJECTED, "declined")


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


class ResultParticipant:
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
        (nested_lists(70), "max_body_depth"),
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
        outcome, body = await DirectExecutor(
            ResultParticipant(engine, result), database, EventRecorder()
        )(make_command())
        await database.close()
        assert (outcome, body["code"]) == (Outcome.FAILED, "invalid_result")
        assert problem in body["message"]
        assert await booking_rows(engine) == []


async def performed(participant):
    payments = SimpleNamespace(participant=participant)
    return await DirectExecutor(payments, None, EventRecorder())(make_command())
