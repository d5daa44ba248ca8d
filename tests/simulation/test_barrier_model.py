"""What the model makes of the barrier's statements is what PostgreSQL makes of them."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from saga_engine.errors import StoreUnavailable
from saga_engine.participant import barrier as kit
from saga_engine.participant.barrier import EMPTY, REFUSED, Answer, Case, InHand
from saga_engine.protocol.command import Command
from saga_engine.vocabulary import Direction, Outcome
from simulation import barrier_model as model
from simulation.faults import Faults, dice
from simulation.memory_database import Database, Tables, Transaction
from simulation.process import Process

DONE = Answer(Outcome.SUCCEEDED, b"1")
NO = Answer(Outcome.REJECTED, b'{"code": "no"}')


@pytest.fixture
async def postgresql(database_url):
    engine = create_async_engine(database_url)
    await kit.create(engine)
    yield engine.begin
    await engine.dispose()


@pytest.fixture
def simulated():
    process = Process("test", Faults(), dice(0, "network"))
    return Database(Tables(model.ANSWERS), process).transaction


@pytest.fixture(params=["postgresql", "simulated"])
def begin(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def action():
    return Command(
        *(uuid4(), "s", 1, "step", Direction.ACTION, 1, "do.it", "key", None),
        datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.fixture
def undo(action):
    return replace(action, direction=Direction.COMPENSATION, idempotency_key="undo")


async def perform(begin, command, answer=DONE, *, undoes=False):
    """What the barrier says, and the answer recorded if it says nothing."""
    async with begin() as tx:
        known = await kit.enter(tx, command, undoes=undoes)
        if known is None:
            await kit.leave(tx, command, answer)
        return known


async def test_a_repeated_command_gets_its_first_answer(begin, action):
    assert await perform(begin, action) is None
    again = await perform(begin, replace(action, attempt=2))
    assert again == Answer(Outcome.SUCCEEDED, b"1", Case.REPEATED)


async def test_what_was_rolled_back_is_not_remembered(begin, action):
    @asynccontextmanager
    async def broken():
        async with begin() as tx:
            yield tx
            raise LookupError

    with pytest.raises(LookupError):
        await perform(broken, action)
    assert await perform(begin, action) is None


async def test_an_undo_of_nothing_leaves_a_tombstone(begin, action, undo):
    assert await perform(begin, undo, undoes=True) == EMPTY
    assert await perform(begin, action) == REFUSED


async def test_an_undo_of_what_was_done_is_performed_once(begin, action, undo):
    assert await perform(begin, action) is None
    assert await perform(begin, undo, undoes=True) is None
    again = await perform(begin, undo, undoes=True)
    assert (again.outcome, again.case) == (Outcome.SUCCEEDED, Case.REPEATED)


async def test_a_rejected_command_may_be_tried_anew_with_another_key_and_a_higher_attempt(
    begin, action
):
    assert await perform(begin, action, NO) is None
    assert (await perform(begin, replace(action, attempt=2))).outcome is Outcome.REJECTED
    anew = replace(action, attempt=2, idempotency_key="other")
    assert await perform(begin, anew) is None
    assert (await perform(begin, anew)).outcome is Outcome.SUCCEEDED


async def test_a_rejected_command_is_buried_by_its_undo(begin, action, undo):
    assert await perform(begin, action, NO) is None
    assert await perform(begin, undo, undoes=True) == EMPTY
    assert await perform(begin, replace(action, attempt=2, idempotency_key="x")) == REFUSED


async def test_whoever_comes_while_a_command_is_in_hand_is_told_to_come_again(begin, action, undo):
    async with begin() as tx:
        assert await kit.enter(tx, action, undoes=False) is None
        with pytest.raises(InHand):
            await perform(begin, action)
        with pytest.raises(InHand):
            await perform(begin, undo, undoes=True)
        await kit.leave(tx, action, DONE)
    assert await perform(begin, action) == Answer(Outcome.SUCCEEDED, b"1", Case.REPEATED)
    assert await perform(begin, undo, undoes=True) is None


async def test_a_simulated_transaction_that_was_cut_while_it_waited_locks_nothing():
    process = Process("test", Faults(), dice(0, "network"))
    tables = Tables(model.ANSWERS)
    holder, waiting, other = (Transaction(tables, process, None) for _ in range(3))
    holder.grab("run", 1)
    for each in (holder, waiting):
        asyncio.get_running_loop().call_soon(each.end)
    with pytest.raises(StoreUnavailable, match="was cut while it waited"):
        await waiting.lock("run", 1)
    assert other.free("run", 1)
