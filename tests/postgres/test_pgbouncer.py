"""A connection through a pooler sets its limits in each transaction; tests/environments has one."""

from collections.abc import AsyncIterator

import pytest

from saga_engine.postgres import pgbouncer
from saga_engine.postgres.statement import text
from saga_engine.postgres.url import parse_database_url

SETTINGS = {"statement_timeout": "1234"}
SHOW = text("SELECT current_setting('statement_timeout'), current_setting('application_name')")


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[pgbouncer.PoolerAwareConnection]:
    connection = await pgbouncer.connect(**parse_database_url(database_url).connect_arguments())
    yield connection
    await connection.close()


async def test_a_direct_connection_keeps_statements_prepared(
    connection: pgbouncer.PoolerAwareConnection,
):
    assert not connection.uses_pooler()
    for _ in range(2):
        await connection.execute_statement(SHOW)
    assert list(connection._prepared_by_sql) == [SHOW.sql]
    assert not await pgbouncer.leads_through_pooler(connection)


async def test_through_a_pooler_each_transaction_sets_the_limits(
    connection: pgbouncer.PoolerAwareConnection,
):
    connection.enable_pooler_mode(SETTINGS)
    assert connection.uses_pooler()
    async with connection.transaction():
        assert tuple((await connection.execute_statement(SHOW)).one()) == (
            "1234ms",
            connection.session_name,
        )
    assert (await connection.execute_statement(SHOW)).one()[0] == "0"
    assert not connection._prepared_by_sql
