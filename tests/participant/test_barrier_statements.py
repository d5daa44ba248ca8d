"""The barrier's table is in a schema that is named, or in the first of the search path."""

import asyncio
import re
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import create_async_engine

from saga_engine.errors import ConfigurationError
from saga_engine.participant import barrier
from saga_engine.participant.barrier_statements import BarrierStatements
from saga_engine.participant.database import (
    ParticipantDatabase,
)
from saga_engine.settings import Settings
from tests.kit.payments_participant import (
    booking_rows,
    direct_executor,
    make_command,
)
from tests.kit.tenant_participant import make_tenant_command, tenants


async def test_the_barrier_may_be_in_a_schema_that_the_search_path_does_not_name(database_url):
    async with tenants(database_url, "a URL", schema="tenant") as executor:
        asked = make_tenant_command()
        first, second = await executor(asked), await executor(asked)
        assert first == second
        assert await booking_rows(executor.user_engine) == [("o-1", 1)]
        async with executor.user_engine.connect() as tx:
            assert await barrier.find_schema(tx) is None
            assert await barrier.find_schema(tx, "tenant") == "tenant"


async def test_an_empty_search_path_is_reported_with_a_fix_that_works(database_url):
    engine = create_async_engine(
        database_url, connect_args={"server_settings": {"search_path": ""}}
    )
    database = ParticipantDatabase(engine, Settings())
    for create in (True, False):
        with pytest.raises(ConfigurationError) as found:
            await database.prepare(create_barrier=create)
        assert "search_path" in str(found.value)
        assert "barrier_schema" in str(found.value)
        assert "saga-engine migrate" not in str(found.value)
    await database.prepare(create_barrier=True, schema="public")
    with pytest.raises(ConfigurationError, match="schema nowhere does not exist"):
        await database.prepare(create_barrier=True, schema="nowhere")
    await database.close()
    await engine.dispose()


async def test_the_table_is_created_by_many_processes_at_once(user_engine):
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(barrier.create_table(user_engine))
    async with user_engine.connect() as tx:
        assert await tx.scalar(text("SELECT count(*) FROM saga_barrier")) == 0


async def test_old_rows_are_deleted_in_batches_and_recent_ones_kept(user_engine):
    async with direct_executor(user_engine) as (_, executor):
        for _ in range(5):
            await executor(make_command())
        async with user_engine.begin() as tx:
            await tx.execute(
                text("UPDATE saga_barrier SET claimed_at = now() - interval '31 days'")
            )
        await executor(make_command())
    assert await barrier.delete_older_than(user_engine, timedelta(days=30), batch_size=2) == 5
    async with user_engine.connect() as tx:
        assert await tx.scalar(text("SELECT count(*) FROM saga_barrier")) == 1


@pytest.mark.parametrize(
    ("schema", "table"),
    [
        ("tenant", '"tenant".saga_barrier'),
        ('a"b', '"a""b".saga_barrier'),
        ("a-:b", '"a-:b".saga_barrier'),
    ],
)
def test_every_statement_of_a_schema_names_its_table_quoted(schema, table):
    statements = BarrierStatements.for_schema(schema)
    for name in BarrierStatements.__slots__:
        statement = str(getattr(statements, name).compile(dialect=postgresql.dialect()))
        named = re.findall(r"(?:INTO|UPDATE|FROM) (\S*saga_barrier)\b", statement)
        assert named, name
        assert set(named) == {table}, name
