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
from saga_engine.participant.barrier import (
    EMPTY_COMPENSATION_RESULT,
    REFUSED_RESULT,
    CommandInProgress,
    CommandResult,
)
from saga_engine.protocol.command import Command
from saga_engine.vocabulary import BarrierResult, Direction, Outcome
from simulation import barrier_model as model
from simulation.faults import FaultInjector, seeded_random
from simulation.memory_database import MemoryDatabase, MemoryDatabaseClient, MemoryTransaction
from simulation.process import SimulatedProcess

DONE = CommandResult(Outcome.SUCCEEDED, b"1")
NO = CommandResult(Outcome.REJECTED, b'{"code": "no"}')


@pytest.fixture
async def postgresql(database_url):
    engine = create_async_engine(database_url)
    await kit.create_table(engine)
    yield engine.begin
    await engine.dispose()


@pytest.fixture
def simulated():
    process = SimulatedProcess("test", FaultInjector(), seeded_random(0, "network"))
    return MemoryDatabaseClient(MemoryDatabase(model.HANDLERS), process).transaction


@pytest.fixture(params=["postgresql", "simulated"])
def begin(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def action():
    return Command(
        run_id=uuid4(),
        saga="s",
        version=1,
        step="step",
        direction=Direction.ACTION,
        attempt=1,
        name="do.it",
        idempotency_key="key",
        payload=None,
        deadline=datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.fixture
def undo(action):
    return replace(action, direction=Direction.COMPENSATION, idempotency_key="undo")


async def perform(begin, command, answer=DONE, *, undoes=False):
    """What the barrier says, and the answer recorded if it says nothing."""
    async with begin() as tx:
        known = await kit.claim_command(tx, command, compensates_local_action=undoes)
        if known is None:
            await kit.record_result(tx, command, answer)
        return known


async def test_a_repeated_command_gets_its_first_answer(begin, action):
    assert await perform(begin, action) is None
    again = await perform(begin, replace(action, attempt=2))
    assert again == CommandResult(Outcome.SUCCEEDED, b"1", BarrierResult.REPEATED)


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
    assert await perform(begin, undo, undoes=True) == EMPTY_COMPENSATION_RESULT
    assert await perform(begin, action) == REFUSED_RESULT


async def test_an_undo_of_what_was_done_is_performed_once(begin, action, undo):
    assert await perform(begin, action) is None
    assert await perform(begin, undo, undoes=True) is None
    again = await perform(begin, undo, undoes=True)
    assert (again.outcome, again.barrier_result) == (Outcome.SUCCEEDED, BarrierResult.REPEATED)


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
    assert await perform(begin, undo, undoes=True) == EMPTY_COMPENSATION_RESULT
    assert await perform(begin, replace(action, attempt=2, idempotency_key="x")) == REFUSED_RESULT


async def test_whoever_comes_while_a_command_is_in_hand_is_told_to_come_again(begin, action, undo):
    async with begin() as tx:
        assert await kit.claim_command(tx, action, compensates_local_action=False) is None
        with pytest.raises(CommandInProgress):
            await perform(begin, action)
        with pytest.raises(CommandInProgress):
            await perform(begin, undo, undoes=True)
        await kit.record_result(tx, action, DONE)
    assert await perform(begin, action) == CommandResult(
        Outcome.SUCCEEDED, b"1", BarrierResult.REPEATED
    )
    assert await perform(begin, undo, undoes=True) is None


async def test_a_simulated_transaction_that_was_cut_while_it_waited_locks_nothing():
    process = SimulatedProcess("test", FaultInjector(), seeded_random(0, "network"))
    tables = MemoryDatabase(model.HANDLERS)
    holder, waiting, other = (MemoryTransaction(tables, process, None) for _ in range(3))
    holder.lock_unlocked("run", 1)
    for each in (holder, waiting):
        asyncio.get_running_loop().call_soon(each.release)
    with pytest.raises(StoreUnavailable, match="was lost while it waited"):
        await waiting.lock("run", 1)
    assert other.is_lockable("run", 1)
