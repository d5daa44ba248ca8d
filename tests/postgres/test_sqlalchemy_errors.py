"""Errors that SQLAlchemy has wrapped are translated like those of the driver."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from saga_engine.errors import SchemaMismatch, StoreUnavailable
from saga_engine.postgres import sqlalchemy_errors as errors


async def failure(url: str, sql: str) -> DBAPIError:
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError) as raised:
            await connection.execute(text(sql))
    await engine.dispose()
    return raised.value


async def test_the_error_of_the_driver_is_unwrapped(database_url: str):
    missing = await failure(database_url, "SELECT * FROM missing_table")
    assert errors.sqlstate_of(missing) == "42P01"
    assert isinstance(errors.translate_error(missing, "db"), SchemaMismatch)
    assert not errors.is_unavailable(missing)


async def test_a_session_that_was_terminated_is_unavailable(database_url: str):
    ended = await failure(database_url, "SELECT pg_terminate_backend(pg_backend_pid())")
    assert errors.is_unavailable(ended)
    assert isinstance(errors.translate_error(ended, "db"), StoreUnavailable)


def test_a_pool_without_a_free_connection_is_unavailable():
    found = errors.translate_error(PoolTimeoutError(), "db")
    assert "All connections to db are busy" in str(found)


def test_another_error_is_not_translated():
    assert errors.translate_error(KeyError("x"), "db") is None
    assert not errors.is_stale_connection(KeyError("x"))


async def test_a_statement_that_the_server_has_dropped_is_stale(database_url: str):
    assert errors.is_stale_statement(await failure(database_url, "EXECUTE dropped"))
    assert not errors.is_stale_statement(await failure(database_url, "SELECT 1/0"))
    assert not errors.is_stale_statement(None)
