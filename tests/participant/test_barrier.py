import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from sqlalchemy import text

from saga_engine.participant import barrier
from saga_engine.participant.database import ParticipantDatabase
from saga_engine.settings import Settings
from saga_engine.telemetry.events import BarrierHit
from saga_engine.vocabulary import Outcome
from tests.kit.payments_participant import (
    DirectExecutor,
    EventList,
    direct_executor,
    ledger_engine,
    ledger_rows,
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
async def engine(database_url):
    async with ledger_engine(database_url) as engine:
        yield engine


@pytest.fixture
async def shop_and_desk(engine):
    async with direct_executor(engine) as both:
        yield both


@pytest.fixture
def shop(shop_and_desk):
    return shop_and_desk[0]


@pytest.fixture
def desk(shop_and_desk):
    return shop_and_desk[1]


def cases(desk):
    return [fact.reason for fact in desk.events.of_type(BarrierHit)]


async def test_a_repeated_command_has_one_effect_and_gets_its_first_reply(engine, desk):
    charge = make_command()
    again = make_command(charge.run_id, attempt=2)
    first = await desk(charge)
    assert first == (Outcome.SUCCEEDED, {"charge_id": "o-1-1"})
    assert [await desk(charge), await desk(again)] == [first, first]
    assert await ledger_rows(engine) == [("o-1", 1)]
    assert cases(desk) == ["repeated", "repeated"]


@pytest.mark.parametrize("card", ["ok", "declined"])
async def test_twenty_deliveries_at_once_have_one_effect_and_one_reply(engine, shop, desk, card):
    charge = make_command(payload={"order_id": "o-1", "card": card})
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(desk(charge)) for _ in range(20)]
    replies = [task.result() for task in tasks]
    assert all(reply == replies[0] for reply in replies)
    assert await ledger_rows(engine) == ([("o-1", 1)] if card == "ok" else [])
    if card == "ok":
        assert shop.calls == ["charge"]


async def test_commands_of_other_runs_steps_and_directions_are_other_commands(engine, desk):
    charge = make_command()
    for asked in (charge, make_command(), make_refund(charge)):
        assert (await desk(asked))[0] is Outcome.SUCCEEDED
    assert await ledger_rows(engine) == [("o-1", -1), ("o-1", 1), ("o-1", 1)]
    assert cases(desk) == []


async def test_undoing_what_never_happened_succeeds_without_the_handler(shop, desk):
    refund = make_refund(make_command())
    assert await desk(refund) == EMPTY
    assert await desk(refund) == EMPTY
    assert shop.calls == []
    assert cases(desk) == ["empty", "repeated"]


async def test_a_command_that_arrives_after_its_compensation_is_refused(shop, desk):
    charge = make_command()
    await desk(make_refund(charge))
    assert await desk(charge) == REFUSED
    assert await desk(make_command(charge.run_id, attempt=2, round=2)) == REFUSED
    assert shop.calls == []
    assert cases(desk) == ["empty", "refused", "refused"]


async def test_a_compensation_waits_for_its_action_in_hand_and_undoes_it(engine, shop, desk):
    charge = make_command(payload={"order_id": "o-1", "card": "slow"})
    async with asyncio.TaskGroup() as group:
        charging = group.create_task(desk(charge))
        await shop.entered.wait()
        refunding = group.create_task(desk(make_refund(charge)))
        await desk.saw_in_progress.wait()
        shop.may_finish.set()
    assert charging.result()[0] is Outcome.SUCCEEDED
    assert refunding.result() == EMPTY
    assert shop.calls == ["charge", "refund"]
    assert await ledger_rows(engine) == [("o-1", -1), ("o-1", 1)]


async def test_undoing_a_rejected_command_does_nothing_and_keeps_it_from_coming_back(
    engine, shop, desk
):
    charge = make_command(payload={"order_id": "o-1", "card": "declined"})
    assert (await desk(charge))[0] is Outcome.REJECTED
    assert await desk(make_refund(charge)) == EMPTY
    shop.rejects = False
    anew = make_command(charge.run_id, charge.payload, attempt=2, round=2)
    assert await desk(anew) == REFUSED
    assert shop.calls == ["charge"]
    assert await ledger_rows(engine) == []


async def test_a_rejection_undoes_what_the_handler_wrote_and_is_remembered(engine, shop, desk):
    charge = make_command(payload={"order_id": "o-1", "card": "declined"})
    assert await desk(charge) == (Outcome.REJECTED, DECLINED)
    shop.rejects = False
    assert await desk(charge) == (Outcome.REJECTED, DECLINED)
    assert shop.calls == ["charge"]
    assert await ledger_rows(engine) == []


@pytest.mark.parametrize("reply", ["{}", "null", "[1]", '{"code": 7}', f"1{'0' * 999}"])
async def test_a_remembered_refusal_without_a_code_is_given_again(engine, desk, reply):
    """Another version, or another program, may have written the row."""
    charge = make_command(payload={"order_id": "o-1", "card": "declined"})
    await desk(charge)
    async with engine.begin() as tx:
        await tx.execute(text("UPDATE saga_barrier SET reply = :reply"), {"reply": reply})
    answer = await desk.execute(charge)
    assert (answer.outcome, answer.body) == (Outcome.REJECTED, reply.encode())


class Interrupted:
    """A database of which somebody else makes use before its second transaction."""

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


async def test_a_delivery_that_gets_in_before_a_rejection_is_recorded_decides_for_both(
    engine, shop, desk
):
    charge = make_command(payload={"order_id": "o-1", "card": "declined"})

    async def get_in():
        shop.rejects = False
        assert (await desk(charge))[0] is Outcome.SUCCEEDED

    other = DirectExecutor(
        shop, Interrupted(ParticipantDatabase(engine, Settings()), get_in), EventList()
    )
    assert await other(charge) == await desk(charge)
    assert shop.calls == ["charge", "charge"]
    assert await ledger_rows(engine) == [("o-1", 1)]


async def test_a_rejected_command_asked_anew_by_an_operator_runs_again(engine, shop, desk):
    charge = make_command(payload={"order_id": "o-1", "card": "declined"})
    await desk(charge)
    shop.rejects = False
    anew = make_command(charge.run_id, charge.payload, attempt=2, round=2)
    first = await desk(anew)
    assert first[0] is Outcome.SUCCEEDED
    assert await desk(anew) == first
    assert await desk(charge) == first
    assert await ledger_rows(engine) == [("o-1", 1)]


async def test_a_new_key_without_a_later_attempt_is_not_a_new_command(shop, desk):
    charge = make_command(payload={"order_id": "o-1", "card": "declined"}, attempt=3)
    await desk(charge)
    shop.rejects = False
    late = make_command(charge.run_id, charge.payload, attempt=2, round=7)
    assert await desk(late) == (Outcome.REJECTED, DECLINED)


async def test_a_command_asked_anew_that_fails_stays_rejected_until_it_runs_through(
    engine, shop, desk
):
    charge = make_command(payload={"order_id": "o-1", "card": "declined"})
    await desk(charge)
    broken = {"order_id": "o-1", "card": "broken"}
    assert (await desk(make_command(charge.run_id, broken, attempt=2, round=2)))[
        0
    ] is Outcome.FAILED
    shop.rejects = False
    assert (await desk(make_command(charge.run_id, broken, attempt=3, round=2)))[
        0
    ] is Outcome.SUCCEEDED
    assert await ledger_rows(engine) == [("o-1", 1)]


async def test_a_rejected_compensation_asked_anew_runs_again(engine, shop, desk):
    charge = make_command(payload={"order_id": "never"})
    await desk(charge)
    assert (await desk(make_refund(charge, order="never")))[0] is Outcome.REJECTED
    shop.rejects = False
    assert await desk(make_refund(charge, order="never", attempt=2, round=2)) == EMPTY
    assert await ledger_rows(engine) == [("never", -1), ("never", 1)]


@pytest.mark.parametrize("card", ["broken", "unsure"])
async def test_a_failure_undoes_what_the_handler_wrote_and_may_run_again(engine, shop, desk, card):
    charge = make_command(payload={"order_id": "o-1", "card": card})
    assert (await desk(charge))[0] is Outcome.FAILED
    assert await ledger_rows(engine) == []
    shop.rejects = False
    assert (await desk(charge))[0] is Outcome.SUCCEEDED
    assert await ledger_rows(engine) == [("o-1", 1)]


async def test_a_handler_killed_before_its_commit_leaves_nothing_and_runs_again(engine, shop, desk):
    charge = make_command(payload={"order_id": "o-1", "card": "slow"})
    performing = asyncio.ensure_future(desk(charge))
    await shop.entered.wait()
    performing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await performing
    assert await ledger_rows(engine) == []
    shop.may_finish.set()
    assert (await desk(charge))[0] is Outcome.SUCCEEDED
    assert await ledger_rows(engine) == [("o-1", 1)]


async def test_a_handler_that_commits_by_itself_is_told_so_and_never_doubled(engine, shop, desk):
    charge = make_command(payload={"order_id": "o-1", "card": "committing"})
    for _ in range(2):
        outcome, body = await desk(charge)
        assert (outcome, body["code"]) == (Outcome.FAILED, "transaction_ended")
    assert shop.calls == ["charge"]
    assert await ledger_rows(engine) == [("o-1", 1)]


async def test_the_table_is_created_by_many_processes_at_once(engine):
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(barrier.create_table(engine))
    async with engine.connect() as tx:
        assert await tx.scalar(text("SELECT count(*) FROM saga_barrier")) == 0


async def test_old_rows_are_forgotten_in_batches_and_young_ones_kept(engine, desk):
    for _ in range(5):
        await desk(make_command())
    async with engine.begin() as tx:
        await tx.execute(text("UPDATE saga_barrier SET claimed_at = now() - interval '31 days'"))
    await desk(make_command())
    assert await barrier.delete_older_than(engine, timedelta(days=30), batch_size=2) == 5
    async with engine.connect() as tx:
        assert await tx.scalar(text("SELECT count(*) FROM saga_barrier")) == 1


async def test_duplicates_at_once_are_one_on_an_engine_of_another_isolation_level(engine):
    strict = engine.execution_options(isolation_level="SERIALIZABLE")
    async with direct_executor(strict) as (shop, desk):
        charge = make_command()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(desk(charge)) for _ in range(10)]
        assert {task.result()[0] for task in tasks} == {Outcome.SUCCEEDED}
        assert shop.calls == ["charge"]
