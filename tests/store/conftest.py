"""A database with our tables, for every test of the store."""

from collections.abc import AsyncIterator

import pytest

from saga_engine.settings import Settings
from saga_engine.store import definitions
from saga_engine.store.database import Database
from tests.store.orders import ORDERS


@pytest.fixture
async def database(migrated_url: str) -> AsyncIterator[Database]:
    async with Database(migrated_url, Settings()) as database:
        yield database


@pytest.fixture
async def definition_id(database: Database) -> int:
    async with database.transaction() as tx:
        return (await definitions.register(tx, [ORDERS]))[ORDERS.name, ORDERS.version]
