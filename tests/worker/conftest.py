"""The engine of each test of the worker; its promises are checked when the test ends."""

import pytest

from saga_engine.identifiers import uuid7
from saga_engine.payload.encryption import NO_ENCRYPTION
from saga_engine.store import pending_requests
from saga_engine.store.database import Database
from saga_engine.store.pending_requests import NewRequest
from saga_engine.store.sql_store import SqlStore
from saga_engine.store.trigger_data import serialize_trigger
from saga_engine.telemetry.events import Emitter
from saga_engine.worker.loops import register_sagas
from tests.kit.engine import engine_harness
from tests.kit.parcels import parcels
from tests.kit.promises import check_promises
from tests.worker.batches import SETTINGS, BatchDriver, start


@pytest.fixture
async def engine(development_broker, migrated_url):
    """An engine on the development broker, which is fast and can inject faults."""
    async with engine_harness(development_broker.url, migrated_url) as engine:
        yield engine
        await check_promises(engine.database, settled=False, held=engine.held_runs())


@pytest.fixture
async def engine_on_any_broker(broker_url, migrated_url):
    """An engine on the development broker, and in a second test on RabbitMQ."""
    async with engine_harness(broker_url, migrated_url) as engine:
        yield engine
        await check_promises(engine.database, settled=False, held=engine.held_runs())


@pytest.fixture
async def batch_driver(migrated_url):
    async with Database(migrated_url, SETTINGS) as database:
        registered = await register_sagas(
            SqlStore(database), [parcels()], NO_ENCRYPTION, Emitter(), SETTINGS
        )
        yield BatchDriver(database, registered.registry)


@pytest.fixture
async def queued_run_id(batch_driver):
    """The run id of a start that is stored and not processed yet."""
    run_id = str(uuid7())
    kind, body = serialize_trigger(start(run_id))
    async with batch_driver.database.transaction() as tx:
        await pending_requests.record(
            tx, [NewRequest(kind=kind, run_id=run_id, body=body, saga="parcel", version=1)]
        )
    return run_id
