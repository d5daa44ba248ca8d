import asyncio

from saga_engine.vocabulary import Outcome
from tests.kit.events import EventRecorder
from tests.kit.payments_participant import (
    DirectExecutor,
    booking_rows,
    bookings_engine,
    direct_executor,
    make_command,
)


async def test_an_invalid_payload_fails_without_quoting_it(payments, executor):
    outcome, body = await executor(make_command(payload={"order_id": 4111_1111_1111_1111}))
    assert (outcome, body["code"]) == (Outcome.FAILED, "invalid_payload")
    assert "order_id" in body["message"]
    assert "4111" not in str(body)
    assert payments.calls == []


async def test_a_handler_that_hangs_fails_after_the_timeout(payments):
    executor = DirectExecutor(payments, None, EventRecorder(), participant_handler_timeout=0.05)
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


async def test_handlers_run_side_by_side(payments, executor):
    slow = make_command(payload={"order_id": "o-1", "card": "slow"})
    async with asyncio.TaskGroup() as group:
        first = group.create_task(executor(slow))
        await payments.entered.wait()
        assert (await executor(make_command()))[0] is Outcome.SUCCEEDED
        assert not first.done()
        payments.may_finish.set()
