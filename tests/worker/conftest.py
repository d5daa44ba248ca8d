"""An engine for every test of the worker, and its promises checked at the end of each."""

import pytest

from tests.worker.engine import engine_on
from tests.worker.promises import check_promises


@pytest.fixture
async def engine(development_broker, migrated_url):
    """On the development broker: quick, and with faults on demand."""
    async with engine_on(development_broker.url, migrated_url) as engine:
        yield engine
        await check_promises(engine.database, settled=False)


@pytest.fixture
async def anywhere(broker_url, migrated_url):
    """On the development broker and on RabbitMQ."""
    async with engine_on(broker_url, migrated_url) as engine:
        yield engine
        await check_promises(engine.database, settled=False)
