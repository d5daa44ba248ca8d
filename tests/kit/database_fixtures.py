"""
A database with our tables, for every test of the store.

What the model of PostgreSQL in simulation has to keep as well is marked with `BOTH`.
"""

from collections.abc import AsyncIterator

import pytest

from saga_engine.settings import Settings
from saga_engine.store import definitions
from saga_engine.store.database import Database
from simulation import memory_database as simulation
from simulation import store_model
from simulation.faults import FaultInjector, seeded_random
from simulation.memory_store import MemoryStore
from simulation.process import SimulatedProcess
from tests.kit.stored_runs import ORDERS


@pytest.fixture
async def postgresql(migrated_url: str) -> AsyncIterator[Database]:
    async with Database(migrated_url, Settings()) as database:
        yield database


@pytest.fixture
def simulated() -> MemoryStore:
    process = SimulatedProcess("test", FaultInjector(), seeded_random(0, "network"))
    tables = simulation.MemoryDatabase(*store_model.HANDLER_SETS)
    return MemoryStore(tables, process, lock_timeout=2.0)


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Database:
    chosen: Database = request.getfixturevalue(getattr(request, "param", "postgresql"))
    return chosen


@pytest.fixture
async def definition_id(database: Database) -> int:
    async with database.transaction() as tx:
        return (await definitions.register(tx, [ORDERS]))[ORDERS.name, ORDERS.version]
