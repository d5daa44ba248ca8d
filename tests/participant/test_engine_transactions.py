"""The transaction of a command on the user's engine: it commits at its end, and leaves nothing."""

import pytest
from sqlalchemy import text

from saga_engine.participant.barrier import CommandResult
from saga_engine.participant.database import ParticipantDatabase
from saga_engine.settings import Settings
from saga_engine.vocabulary import Outcome
from tests.kit.payments_participant import make_command

DONE = CommandResult(Outcome.SUCCEEDED, b"1")


@pytest.fixture
async def database(user_engine):
    database = ParticipantDatabase(user_engine, Settings())
    await database.prepare(create_barrier=True)
    return database


async def test_a_result_is_committed_with_the_effect_at_the_end_of_the_block(database, user_engine):
    charge = make_command()
    async with database.transaction() as tx:
        assert await tx.barrier.claim(charge)
        await tx.connection.execute(text("INSERT INTO bookings VALUES ('o-1', 1)"))
        assert await tx.commit_result(charge, DONE)
    assert user_engine.pool.checkedout() == 0
    async with user_engine.connect() as other:
        rows = await other.execute(text("SELECT outcome, amount FROM saga_barrier, bookings"))
        assert rows.all() == [("succeeded", 1)]


async def test_an_error_rolls_back_the_claim_and_the_effect(database, user_engine):
    charge = make_command()

    async def fail():
        async with database.transaction() as tx:
            assert await tx.barrier.claim(charge)
            await tx.connection.execute(text("INSERT INTO bookings VALUES ('o-1', 1)"))
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert user_engine.pool.checkedout() == 0
    async with user_engine.connect() as other:
        assert (await other.execute(text("SELECT 1 FROM saga_barrier"))).all() == []
        assert (await other.execute(text("SELECT 1 FROM bookings"))).all() == []
