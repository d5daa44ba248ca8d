"""A database is usable if it has the schema, the encoding UTF8 and does not lose commits."""

import pytest

from saga_engine.errors import ConfigurationError, SchemaMismatch
from saga_engine.postgres.statement import text
from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.database_check import check_database


async def test_a_migrated_database_is_usable(database: Database):
    async with database.transaction() as tx:
        await check_database(tx, "db")


async def test_a_database_without_the_schema_is_not(database_url: str):
    async with Database(database_url, Settings()).transaction() as tx:
        with pytest.raises(SchemaMismatch, match=r"db has no saga-engine schema.*migrate"):
            await check_database(tx, "db")


async def test_a_session_that_could_lose_commits_is_refused(database: Database):
    async with database.transaction() as tx:
        await tx.execute(text("SET LOCAL synchronous_commit = off"))
        with pytest.raises(ConfigurationError, match="synchronous_commit is off for db"):
            await check_database(tx, "db")
