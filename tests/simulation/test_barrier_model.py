"""The statements of the barrier have the same effect in the model and in PostgreSQL."""

from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from saga_engine.participant import barrier
from saga_engine.participant.barrier import (
    EMPTY_COMPENSATION_RESULT,
    REFUSED_RESULT,
    BatchClaim,
    CommandInProgress,
    CommandResult,
)
from saga_engine.participant.database import ParticipantDatabase
from saga_engine.participant.sql_barrier_table import SqlBarrierTable
from saga_engine.settings import Settings
from saga_engine.vocabulary import BarrierResult, Command, Direction, Outcome
from simulation.barrier_model import BarrierModel
from simulation.faults import FaultInjector, seeded_random
from simulation.memory_client import MemoryDatabaseClient
from simulation.memory_database import MemoryDatabase, MemoryTransaction
from simulation.process import SimulatedProcess
from simulation.services_model import ServicesDatabase, ServicesTransaction

DONE = CommandResult(Outcome.SUCCEEDED, b"1")
REJECTED = CommandResult(Outcome.REJECTED, b'{"code": "no"}')


@pytest.fixture
async def postgresql(database_url):
    engine = create_async_engine(database_url)
    await barrier.create_table(engine)

    @asynccontextmanager
    async def begin():
        async with engine.begin() as tx:
            yield SqlBarrierTable(tx)

    yield begin
    await engine.dispose()


@pytest.fixture
async def driver(database_url):
    database = ParticipantDatabase(database_url, Settings())
    await database.prepare(create_barrier=True)

    @asynccontextmanager
    async def begin():
        async with database.transaction() as tx:
            yield tx.barrier

    yield begin
    await database.close()


@pytest.fixture
def simulated():
    process = SimulatedProcess("test", FaultInjector(), seeded_random(0, "network"))
    client = MemoryDatabaseClient(MemoryDatabase(), process, MemoryTransaction)

    @asynccontextmanager
    async def begin():
        async with client.transaction() as tx:
            yield BarrierModel(tx)

    return begin


@pytest.fixture
async def shared_driver(database_url):
    database = ParticipantDatabase(database_url, Settings())
    await database.prepare(create_barrier=True)
    yield database.shared_transaction
    await database.close()


@pytest.fixture
def shared_simulated():
    process = SimulatedProcess("test", FaultInjector(), seeded_random(0, "network"))
    return ServicesDatabase(MemoryDatabase(), process, ServicesTransaction).shared_transaction


@pytest.fixture(params=["shared_driver", "shared_simulated"])
def share(request):
    """Open a transaction of several commands."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["postgresql", "driver", "simulated"])
def begin(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def action():
    return Command(
        run_id=str(uuid4()),
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
def compensation(action):
    return replace(action, direction=Direction.COMPENSATION, idempotency_key="compensation")


async def execute(begin, command, answer=DONE, *, compensates=False):
    """Claim a command and record its result; return the result that the barrier knew, if any."""
    async with begin() as table:
        known = await barrier.claim_command(table, command, compensates_local_action=compensates)
        if known is None:
            await table.record_result(command, answer)
        return known


async def test_a_repeated_command_gets_its_first_result(begin, action):
    assert await execute(begin, action) is None
    again = await execute(begin, replace(action, attempt=2))
    assert again == CommandResult(Outcome.SUCCEEDED, b"1", BarrierResult.REPEATED)


async def test_a_rolled_back_command_is_not_recorded(begin, action):
    @asynccontextmanager
    async def broken():
        async with begin() as table:
            yield table
            raise LookupError

    with pytest.raises(LookupError):
        await execute(broken, action)
    assert await execute(begin, action) is None


async def test_an_empty_compensation_leaves_a_tombstone(begin, action, compensation):
    assert await execute(begin, compensation, compensates=True) == EMPTY_COMPENSATION_RESULT
    assert await execute(begin, action) == REFUSED_RESULT


async def test_a_compensation_is_executed_once(begin, action, compensation):
    assert await execute(begin, action) is None
    assert await execute(begin, compensation, compensates=True) is None
    again = await execute(begin, compensation, compensates=True)
    assert (again.outcome, again.barrier_result) == (Outcome.SUCCEEDED, BarrierResult.REPEATED)


async def test_a_rejected_command_is_retried_with_another_key_and_a_higher_attempt(begin, action):
    assert await execute(begin, action, REJECTED) is None
    assert (await execute(begin, replace(action, attempt=2))).outcome is Outcome.REJECTED
    retried = replace(action, attempt=2, idempotency_key="other")
    assert await execute(begin, retried) is None
    assert (await execute(begin, retried)).outcome is Outcome.SUCCEEDED


async def test_a_compensation_of_a_rejected_command_leaves_a_tombstone(begin, action, compensation):
    assert await execute(begin, action, REJECTED) is None
    assert await execute(begin, compensation, compensates=True) == EMPTY_COMPENSATION_RESULT
    assert await execute(begin, replace(action, attempt=2, idempotency_key="x")) == REFUSED_RESULT


async def test_a_command_in_progress_cannot_be_claimed(begin, action, compensation):
    async with begin() as table:
        assert await barrier.claim_command(table, action, compensates_local_action=False) is None
        with pytest.raises(CommandInProgress):
            await execute(begin, action)
        with pytest.raises(CommandInProgress):
            await execute(begin, compensation, compensates=True)
        await table.record_result(action, DONE)
    assert await execute(begin, action) == CommandResult(
        Outcome.SUCCEEDED, b"1", BarrierResult.REPEATED
    )
    assert await execute(begin, compensation, compensates=True) is None


def claims(*commands, compensates=False):
    return [BatchClaim(each, compensates_local_action=compensates) for each in commands]


def at_step(command, step):
    return replace(command, step=step)


async def test_a_batch_claims_the_commands_that_have_no_row(share, action):
    first, second = at_step(action, "first"), at_step(action, "second")
    async with share() as tx:
        assert [*await tx.barrier.claim_all(claims(action, first))] == [0, 1]
        assert await tx.commit_results([(action, DONE), (first, REJECTED)])
    retried = replace(first, attempt=2, idempotency_key="other")
    async with share() as tx:
        assert [*await tx.barrier.claim_all(claims(action, retried, second))] == [2]
        assert await tx.commit_results([(second, DONE)])
    async with share() as tx:
        outcomes = [(await tx.barrier.select_result(each)).outcome for each in (first, second)]
        assert outcomes == ["rejected", "succeeded"]


async def test_a_released_claim_leaves_no_row(share, action):
    other = at_step(action, "other")
    async with share() as tx:
        assert [*await tx.barrier.claim_all(claims(action, other))] == [0, 1]
        assert await tx.commit_results([(action, None), (other, DONE)])
    async with share() as tx:
        assert await tx.barrier.select_result(action) is None
        assert [*await tx.barrier.claim_all(claims(action, other))] == [0]


async def test_a_batch_claims_a_compensation_whose_action_succeeded(share, action, compensation):
    rejected = at_step(action, "rejected")
    async with share() as tx:
        await tx.barrier.claim_all(claims(action, rejected))
        assert await tx.commit_results([(action, DONE), (rejected, REJECTED)])
    compensations = [compensation, at_step(compensation, "rejected"), at_step(compensation, "none")]
    async with share() as tx:
        assert [*await tx.barrier.claim_all(claims(*compensations, compensates=True))] == [0]
        assert await tx.commit_results([(compensation, DONE)])
    async with share() as tx:
        assert [*await tx.barrier.claim_all(claims(*compensations[1:]))] == [0, 1]


async def test_a_batch_leaves_commands_out_that_are_in_progress(share, action, compensation):
    other = at_step(action, "other")
    async with share() as tx:
        assert [*await tx.barrier.claim_all(claims(action))] == [0]
        async with share() as second:
            assert [*await second.barrier.claim_all(claims(action, other))] == [1]
            compensations = claims(compensation, compensates=True)
            assert not [*await second.barrier.claim_all(compensations)]
            assert await second.commit_results([(other, DONE)])
        assert await tx.commit_results([(action, DONE)])


async def test_what_was_done_since_a_savepoint_is_undone(share, action):
    other = at_step(action, "other")
    async with share() as tx:
        await tx.barrier.claim_all(claims(action))
        await tx.set_savepoint()
        await tx.barrier.claim_all(claims(other))
        await tx.roll_back_to_savepoint()
        await tx.set_savepoint()
        assert await tx.commit_results([(action, DONE)])
    async with share() as tx:
        assert [*await tx.barrier.claim_all(claims(action, other))] == [1]
