"""What a handler does with its connection ends with its command; the session is used again."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ResourceClosedError

from saga_engine.participant.database import ParticipantDatabase
from saga_engine.settings import Settings

SESSION = text("SELECT pg_backend_pid()")


@pytest.fixture
async def database(database_url):
    database = ParticipantDatabase(database_url, Settings())
    yield database
    await database.close()


async def test_a_task_that_a_handler_leaves_behind_cannot_use_the_next_transaction(database):
    next_command_has_started = asyncio.Event()

    async def write_late(connection):
        await next_command_has_started.wait()
        await connection.execute(text("CREATE TABLE late ()"))

    async with database.transaction() as tx:
        session = await tx.connection.scalar(SESSION)
        late = asyncio.ensure_future(write_late(tx.connection))
    async with database.transaction() as tx:
        assert await tx.connection.scalar(SESSION) == session, "the next command reuses it"
        next_command_has_started.set()
        with pytest.raises(ResourceClosedError):
            await late
        assert await tx.connection.scalar(text("SELECT to_regclass('late')")) is None


async def test_options_that_a_handler_sets_do_not_reach_the_next_command(database):
    async with database.transaction() as tx:
        await tx.connection.execution_options(schema_translate_map={None: "tenant"})
    async with database.transaction() as tx:
        assert "schema_translate_map" not in tx.connection.sync_connection.get_execution_options()


@pytest.mark.parametrize("ending", ["commit", "rollback", "close"])
async def test_a_transaction_that_a_handler_has_ended_is_not_active(database, ending):
    async def end_it():
        async with database.transaction() as tx:
            await tx.connection.execute(SESSION)
            assert tx.is_active
            await getattr(tx.connection, ending)()
            if ending != "close":
                await tx.connection.execute(SESSION)  # begins another one
            assert not tx.is_active
            raise LookupError

    with pytest.raises(LookupError):
        await end_it()
    async with database.transaction() as tx:
        assert await tx.connection.scalar(text("SELECT 1")) == 1
