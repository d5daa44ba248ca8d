"""Over the driver, too, only the transaction that claimed a command records its result."""

import pytest
from sqlalchemy import text

from saga_engine.participant.barrier import CommandInProgress, CommandResult, RecordedResult
from saga_engine.participant.database import ParticipantDatabase
from saga_engine.settings import Settings
from saga_engine.vocabulary import Outcome
from tests.kit.payments_participant import make_command, make_refund

DONE = CommandResult(Outcome.SUCCEEDED, b'"it\'s :done"')


@pytest.fixture
async def database(database_url):
    database = ParticipantDatabase(database_url, Settings())
    await database.prepare(create_barrier=True)
    yield database
    await database.close()


async def test_a_claimed_command_has_failed_until_its_result_is_recorded(database):
    charge = make_command()
    async with database.transaction() as tx:
        table = tx.barrier
        assert await table.select_result(charge) is None
        assert await table.claim(charge)
        claimed = await table.select_result(charge)
        assert claimed is not None
        assert claimed.outcome == "failed"
        assert await table.record_result(charge, DONE)
        assert await table.select_result(charge) == RecordedResult("succeeded", '"it\'s :done"')
        assert not await table.claim(charge)
        assert not await table.reclaim(charge)


async def test_another_transaction_cannot_record_the_result(database):
    charge = make_command()
    async with database.transaction() as tx:
        assert await tx.barrier.claim(charge)
    async with database.transaction() as tx:
        assert not await tx.barrier.record_result(charge, DONE)
        recorded = await tx.barrier.select_result(charge)
        assert recorded is not None
        assert recorded.outcome == "failed"


async def test_a_command_and_its_compensation_lock_the_action(database):
    charge = make_command()
    refund = make_refund(charge)
    async with database.transaction() as one, database.transaction() as other:
        await other.connection.execute(text("SET LOCAL lock_timeout = '2s'"))
        assert await one.barrier.claim(charge)
        assert await other.barrier.claim(refund)
        with pytest.raises(CommandInProgress):
            await other.barrier.insert_tombstone(refund)
        with pytest.raises(CommandInProgress):
            await other.barrier.claim(charge)
