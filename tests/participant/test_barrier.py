import asyncio
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text

from saga_engine.participant.database import ParticipantDatabase
from saga_engine.settings import Settings
from saga_engine.telemetry.events import BarrierHit
from saga_engine.vocabulary import Outcome
from tests.kit.events import EventRecorder
from tests.kit.payments_participant import (
    DirectExecutor,
    booking_rows,
    direct_executor,
    make_command,
    make_refund,
)

DECLINED = {"code": "declined", "message": "The card was declined.", "details": {"card": "visa"}}
REFUSED = (
    Outcome.REJECTED,
    {
        "code": "compensated",
        "message": "The step was compensated before this command arrived.",
        "details": None,
    },
)
EMPTY = (Outcome.SUCCEEDED, None)


@pytest.fixture
async def payments_and_executor(user_engine):
    async with direct_executor(user_engine) as both:
        yield both


@pytest.fixture
def payments(payments_and_executor):
    return payments_and_executor[0]


@pytest.fixture
def executor(payments_and_executor):
    return payments_and_executor[1]


def cases(executor):
    return [event.reason for event in executor.events.matching(BarrierHit)]


async def test_a_repeated_command_has_one_effect_and_gets_its_first_reply(user_engine, executor):
    charge = make_command()
    again = make_command(charge.run_id, attempt=2)
    first = await executor(charge)
    assert first == (Outcome.SUCCEEDED, {"charge_id": "o-1-1"})
    assert [await executor(charge), await executor(again)] == [first, first]
    assert await booking_rows(user_engine) == [("o-1", 1)]
    assert cases(executor) == ["repeated", "repeated"]


@pytest.mark.parametrize("card", ["ok", "declined"])
async def test_twenty_deliveries_at_once_have_one_effect_and_one_reply(
    user_engine, payments, executor, card
):
    charge = make_command(payload={"order_id": "o-1", "card": card})
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(executor(charge)) for _ in range(20)]
    replies = [task.result() for task in tasks]
    assert all(reply == replies[0] for reply in replies)
    assert await booking_rows(user_engine) == ([("o-1", 1)] if card == "ok" else [])
    if card == "ok":
        assert payments.calls == ["charge"]


async def test_commands_of_other_runs_steps_and_directions_are_other_commands(
    user_engine, executor
):
    charge = make_command()
    for asked in (charge, make_command(), make_refund(charge)):
        assert (await executor(asked))[0] is Outcome.SUCCEEDED
    assert await booking_rows(user_engine) == [("o-1", -1), ("o-1", 1), ("o-1", 1)]
    assert cases(executor) == []


async def test_compensating_an_action_that_never_ran_succeeds_without_the_handler(
    payments, executor
):
    refund = make_refund(make_command())
    assert await executor(refund) == EMPTY
    assert await executor(refund) == EMPTY
    assert payments.calls == []
    assert cases(executor) == ["empty", "repeated"]


async def test_a_command_that_arrives_after_its_compensation_is_refused(payments, executor):
    charge = make_command()
    await executor(make_refund(charge))
    assert await executor(charge) == REFUSED
    assert await executor(make_command(charge.run_id, attempt=2, round=2)) == REFUSED
    assert payments.calls == []
    assert cases(executor) == ["empty", "refused", "refused"]


async def test_a_compensation_waits_for_its_action_in_progress_and_undoes_it(
    user_engine, payments, executor
):
    charge = make_command(payload={"order_id": "o-1", "card": "slow"})
    async with asyncio.TaskGroup() as group:
        charging = group.create_task(executor(charge))
        await payments.entered.wait()
        refunding = group.create_task(executor(make_refund(charge)))
        await executor.saw_in_progress.wait()
        payments.may_finish.set()
    assert charging.result()[0] is Outcome.SUCCEEDED
    assert refunding.result() == EMPTY
    assert payments.calls == ["charge", "refund"]
    assert await booking_rows(user_engine) == [("o-1", -1), ("o-1", 1)]


async def test_compensating_a_rejected_command_does_nothing_and_blocks_a_retry(
    user_engine, payments, executor
):
    charge = make_command(payload={"order_id": "o-1", "card": "declined"})
    assert (await executor(charge))[0] is Outcome.REJECTED
    assert await executor(make_refund(charge)) == EMPTY
    payments.rejects = False
    anew = make_command(charge.run_id, charge.payload, attempt=2, round=2)
    assert await executor(anew) == REFUSED
    assert payments.calls == ["charge"]
    assert await booking_rows(user_engine) == []


async def test_a_rejection_is_recorded_and_rolls_back_the_handler(user_engine, payments, executor):
    charge = make_command(payload={"order_id": "o-1", "card": "declined"})
    assert await executor(charge) == (Outcome.REJECTED, DECLINED)
    payments.rejects = False
    assert await executor(charge) == (Outcome.REJECTED, DECLINED)
    assert payments.calls == ["charge"]
    assert await booking_rows(user_engine) == []


@pytest.mark.parametrize("reply", ["{}", "null", "[1]", '{"code": 7}', f"1{'0' * 999}"])
async def test_a_recorded_rejection_without_a_code_is_repeated(user_engine, executor, reply):
    """Another version, or another program, may have written the row."""
    charge = make_command(payload={"order_id": "o-1", "card": "declined"})
    await executor(charge)
    async with user_engine.begin() as tx:
        await tx.execute(text("UPDATE saga_barrier SET reply = :reply"), {"reply": reply})
    answer = await executor.execute(charge)
    assert (answer.outcome, answer.body) == (Outcome.REJECTED, reply.encode())


class InterruptedDatabase:
    """A database that another delivery uses before its second transaction."""

    def __init__(self, database, meanwhile):
        self._database = database
        self._meanwhile = meanwhile
        self._number = 0

    @asynccontextmanager
    async def transaction(self):
        self._number += 1
        if self._number == 2:
            await self._meanwhile()
        async with self._database.transaction() as tx:
            yield tx


async def test_a_delivery_executed_before_a_rejection_is_recorded_decides_for_both(
    user_engine, payments, executor
):
    charge = make_command(payload={"order_id": "o-1", "card": "declined"})

    async def get_in():
        payments.rejects = False
        assert (await executor(charge))[0] is Outcome.SUCCEEDED

    other = DirectExecutor(
        payments,
        InterruptedDatabase(ParticipantDatabase(user_engine, Settings()), get_in),
        EventRecorder(),
    )
    assert await other(charge) == await executor(charge)
    assert payments.calls == ["charge", "charge"]
    assert await booking_rows(user_engine) == [("o-1", 1)]


async def test_a_rejected_command_retried_by_an_operator_runs_again(
    user_engine, payments, executor
):
    charge = make_command(payload={"order_id": "o-1", "card": "declined"})
    await executor(charge)
    payments.rejects = False
    anew = make_command(charge.run_id, charge.payload, attempt=2, round=2)
    first = await executor(anew)
    assert first[0] is Outcome.SUCCEEDED
    assert await executor(anew) == first
    assert await executor(charge) == first
    assert await booking_rows(user_engine) == [("o-1", 1)]


async def test_a_new_key_without_a_later_attempt_is_not_a_new_command(payments, executor):
    charge = make_command(payload={"order_id": "o-1", "card": "declined"}, attempt=3)
    await executor(charge)
    payments.rejects = False
    late = make_command(charge.run_id, charge.payload, attempt=2, round=7)
    assert await executor(late) == (Outcome.REJECTED, DECLINED)


async def test_a_retried_command_that_fails_stays_rejected_until_it_succeeds(
    user_engine, payments, executor
):
    charge = make_command(payload={"order_id": "o-1", "card": "declined"})
    await executor(charge)
    broken = {"order_id": "o-1", "card": "broken"}
    assert (await executor(make_command(charge.run_id, broken, attempt=2, round=2)))[
        0
    ] is Outcome.FAILED
    payments.rejects = False
    assert (await executor(make_command(charge.run_id, broken, attempt=3, round=2)))[
        0
    ] is Outcome.SUCCEEDED
    assert await booking_rows(user_engine) == [("o-1", 1)]


async def test_a_rejected_compensation_that_is_retried_runs_again(user_engine, payments, executor):
    charge = make_command(payload={"order_id": "never"})
    await executor(charge)
    assert (await executor(make_refund(charge, order="never")))[0] is Outcome.REJECTED
    payments.rejects = False
    assert await executor(make_refund(charge, order="never", attempt=2, round=2)) == EMPTY
    assert await booking_rows(user_engine) == [("never", -1), ("never", 1)]


@pytest.mark.parametrize("card", ["broken", "unsure"])
async def test_a_failure_rolls_back_the_handler_and_may_run_again(
    user_engine, payments, executor, card
):
    charge = make_command(payload={"order_id": "o-1", "card": card})
    assert (await executor(charge))[0] is Outcome.FAILED
    assert await booking_rows(user_engine) == []
    payments.rejects = False
    assert (await executor(charge))[0] is Outcome.SUCCEEDED
    assert await booking_rows(user_engine) == [("o-1", 1)]


async def test_a_handler_killed_before_its_commit_has_no_effect_and_runs_again(
    user_engine, payments, executor
):
    charge = make_command(payload={"order_id": "o-1", "card": "slow"})
    performing = asyncio.ensure_future(executor(charge))
    await payments.entered.wait()
    performing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await performing
    assert await booking_rows(user_engine) == []
    payments.may_finish.set()
    assert (await executor(charge))[0] is Outcome.SUCCEEDED
    assert await booking_rows(user_engine) == [("o-1", 1)]


async def test_a_handler_that_commits_itself_fails_and_is_never_repeated(
    user_engine, payments, executor
):
    charge = make_command(payload={"order_id": "o-1", "card": "committing"})
    for _ in range(2):
        outcome, body = await executor(charge)
        assert (outcome, body["code"]) == (Outcome.FAILED, "transaction_ended")
    assert payments.calls == ["charge"]
    assert await booking_rows(user_engine) == [("o-1", 1)]


async def test_concurrent_duplicates_have_one_effect_at_any_isolation_level_of_the_engine(
    user_engine,
):
    strict = user_engine.execution_options(isolation_level="SERIALIZABLE")
    async with direct_executor(strict) as (payments, executor):
        charge = make_command()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(executor(charge)) for _ in range(10)]
        assert {task.result()[0] for task in tasks} == {Outcome.SUCCEEDED}
        assert payments.calls == ["charge"]
