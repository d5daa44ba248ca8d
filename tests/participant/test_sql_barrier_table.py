"""
A result is recorded by the transaction that claimed the command, with the role it began with.

What holds for both tables is tested on both: on SQLAlchemy, and on the driver below it.
"""

from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text

from saga_engine.participant import barrier
from saga_engine.participant.barrier import CommandInProgress, CommandResult, RecordedResult
from saga_engine.participant.barrier_statements import BarrierStatements
from saga_engine.participant.sql_barrier_table import SqlBarrierTable
from saga_engine.postgres.session_changes import ROLE_CHANGED_KEY
from saga_engine.vocabulary import Outcome
from tests.kit.payments_participant import make_command, make_refund

DONE = CommandResult(Outcome.SUCCEEDED, b'"it\'s :done"')


@pytest.fixture
async def engine(user_engine):
    await barrier.create_table(user_engine)
    return user_engine


@pytest.fixture(params=["sqlalchemy", "driver"])
def open_table(request):
    """Opens a transaction: its connection, and the barrier's table in it."""
    on_driver = request.param == "driver"
    source = request.getfixturevalue("url_database" if on_driver else "engine")

    @asynccontextmanager
    async def open_transaction():
        if on_driver:
            async with source.transaction() as tx:
                yield tx.connection, tx.barrier
        else:
            async with source.begin() as connection:
                yield connection, SqlBarrierTable(connection)

    return open_transaction


async def test_a_claimed_command_has_failed_until_its_result_is_recorded(open_table):
    charge = make_command()
    async with open_table() as (_, table):
        assert await table.select_result(charge) is None
        assert await table.claim(charge)
        claimed = await table.select_result(charge)
        assert claimed is not None
        assert claimed.outcome == "failed"
        assert await table.record_result(charge, DONE)
        assert await table.select_result(charge) == RecordedResult("succeeded", '"it\'s :done"')
        assert not await table.claim(charge)
        assert not await table.reclaim(charge)


async def test_another_transaction_cannot_record_the_result(open_table):
    charge = make_command()
    async with open_table() as (_, table):
        assert await table.claim(charge)
    async with open_table() as (_, table):
        assert not await table.record_result(charge, DONE)
        recorded = await table.select_result(charge)
        assert recorded is not None
        assert recorded.outcome == "failed"


async def test_a_command_and_its_compensation_lock_the_action(open_table):
    charge = make_command()
    refund = make_refund(charge)
    async with open_table() as (_, one), open_table() as (connection, other):
        await connection.execute(text("SET LOCAL lock_timeout = '2s'"))
        assert await one.claim(charge)
        assert await other.claim(refund)
        with pytest.raises(CommandInProgress):
            await other.insert_tombstone(refund)
        with pytest.raises(CommandInProgress):
            await other.claim(charge)


async def test_the_initial_role_is_restored_only_if_it_may_have_changed(engine):
    charge = make_command()
    async with engine.begin() as connection:
        user = await connection.scalar(text("SELECT current_user"))
        table = SqlBarrierTable(connection, initial_role=user)
        assert await table.claim(charge)
        await connection.execute(text("SET LOCAL ROLE pg_read_all_data"))
        connection.info[ROLE_CHANGED_KEY] = True
        assert await table.record_result(charge, DONE)
        assert await connection.scalar(text("SELECT current_setting('role')")) == user


async def test_the_statements_of_a_schema_do_not_depend_on_the_search_path(engine):
    charge = make_command()
    async with engine.begin() as connection:
        await connection.execute(text("SET LOCAL search_path = ''"))
        table = SqlBarrierTable(connection, BarrierStatements.for_schema("public"))
        assert await table.claim(charge)
        assert await table.record_result(charge, DONE)
        assert await table.insert_tombstone(make_refund(make_command()))
