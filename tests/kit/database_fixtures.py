"""
A database with our tables, for every test of the store.

A test that asks for `store` runs on PostgreSQL and on the model of it in simulation.
"""

from collections.abc import AsyncIterator

import pytest

from saga_engine.settings import Settings
from saga_engine.store.database import Database
from saga_engine.store.interfaces import Store
from simulation.faults import FaultInjector, seeded_random
from simulation.memory_database import MemoryDatabase
from simulation.memory_store import MemoryStore
from simulation.process import SimulatedProcess
from tests.kit.stored_runs import ORDERS
from tests.kit.stores import RequesterStore, SqlRequesterStore


@pytest.fixture
async def database(migrated_url: str) -> AsyncIterator[Database]:
    async with Database(migrated_url, Settings()) as database:
        yield database


@pytest.fixture
def sql_store(database: Database) -> SqlRequesterStore:
    return SqlRequesterStore(database)


@pytest.fixture
def memory_store() -> MemoryStore:
    process = SimulatedProcess("test", FaultInjector(), seeded_random(0, "network"))
    return MemoryStore(MemoryDatabase(), process, lock_timeout=2.0)


@pytest.fixture(params=["sql_store", "memory_store"])
def store(request: pytest.FixtureRequest) -> RequesterStore:
    chosen: RequesterStore = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def used_store(request: pytest.FixtureRequest) -> Store:
    """The store of a test: `store`, or the one in PostgreSQL for a test that asks for less."""
    name = "store" if "store" in request.fixturenames else "sql_store"
    chosen: Store = request.getfixturevalue(name)
    return chosen


@pytest.fixture
async def definition_id(used_store: Store) -> int:
    async with used_store.transaction() as tx:
        return (await tx.register_definitions([ORDERS]))[ORDERS.name, ORDERS.version]
