"""A caller's connection is refused, with a sentence, if it has no transaction to work in."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool

from saga_engine.errors import InvalidInput, SchemaMismatch
from saga_engine.postgres import caller_connection


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(database_url, poolclass=NullPool)
    yield engine
    await engine.dispose()


async def test_a_connection_in_a_transaction_is_accepted(engine: AsyncEngine):
    async with engine.begin() as connection:
        await caller_connection.check(connection)
    async with AsyncSession(engine) as session:
        await caller_connection.check(await session.connection())


async def test_a_connection_in_autocommit_is_refused(engine: AsyncEngine):
    async with engine.connect() as connection:
        one = await connection.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(InvalidInput, match=r"is in autocommit.*Begin one"):
            await caller_connection.check(one)
    engine = engine.execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        with pytest.raises(InvalidInput, match=r"is in autocommit.*Begin one"):
            await caller_connection.check(connection)


@pytest.mark.parametrize(
    "kind", ["engine", "AsyncSession", "sync connection", "driver's connection", "None"]
)
async def test_what_is_not_a_connection_is_refused(engine: AsyncEngine, kind: str):
    async with engine.begin() as connection, AsyncSession(engine) as session:
        given: dict[str, Any] = {
            "engine": engine,
            "AsyncSession": session,
            "sync connection": connection.sync_connection,
            "driver's connection": (await connection.get_raw_connection()).driver_connection,
            "None": None,
        }
        with pytest.raises(InvalidInput, match=r"The connection is a \w+\. Give an AsyncConn"):
            await caller_connection.check(given[kind])


async def test_a_statement_in_a_failed_transaction_is_refused(engine: AsyncEngine):
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError):
            await connection.execute(text("SELECT 1/0"))
        with (
            pytest.raises(InvalidInput, match=r"Your transaction has failed.* Roll it back"),
            caller_connection.translated_errors(),
        ):
            await connection.execute(text("SELECT 1"))


async def test_the_server_of_a_connection_is_named_as_the_callers(engine: AsyncEngine):
    async with engine.connect() as connection:
        with (
            pytest.raises(SchemaMismatch, match=r"^PostgreSQL on your connection lacks a table"),
            caller_connection.translated_errors(),
        ):
            await connection.execute(text("SELECT * FROM missing"))
